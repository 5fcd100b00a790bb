"""The gateway: streams that hold. A library without LangChain in it."""
