"""Run the chains. Only this package uses LangChain."""
