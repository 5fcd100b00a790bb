"""LangGraph's runs and threads, as its SDKs read them."""

from gateway.formats.langgraph import runs, state

ROUTES = (*runs.ROUTES, *state.ROUTES)
__all__ = ["ROUTES"]
