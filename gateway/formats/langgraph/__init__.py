"""LangGraph's runs and threads, as its SDKs read them."""

from gateway.formats.langgraph import (
    assistants,
    protocol_commands,
    protocol_events,
    runs,
    search,
    state,
    thread_stream,
)

ROUTES = (
    *runs.ROUTES,
    *search.ROUTES,
    *state.ROUTES,
    *thread_stream.ROUTES,
    *assistants.ROUTES,
    *protocol_events.ROUTES,
    *protocol_commands.ROUTES,
)
__all__ = ["ROUTES"]
