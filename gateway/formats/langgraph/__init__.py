"""LangGraph's runs and threads, as its SDKs read them."""

from gateway.formats.langgraph import assistants, runs, search, state, thread_stream

ROUTES = (*runs.ROUTES, *search.ROUTES, *state.ROUTES, *thread_stream.ROUTES, *assistants.ROUTES)
__all__ = ["ROUTES"]
