"""LangGraph's runs and threads, as its SDKs read them."""
