"""Runs the chains: the only code that knows LangChain."""
