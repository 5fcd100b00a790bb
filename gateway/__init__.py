"""The gateway: durable streams. It is a library that does not use LangChain."""
