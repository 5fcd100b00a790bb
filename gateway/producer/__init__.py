"""Streams that somebody else's code writes: from its own process, or from anywhere by HTTP. No LangChain."""
