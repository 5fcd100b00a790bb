"""LangGraph's runs and threads, as its SDKs read them."""

from gateway.formats.langgraph import protocol_commands, protocol_events, runs, state

ROUTES = (*runs.ROUTES, *state.ROUTES, *protocol_events.ROUTES, *protocol_commands.ROUTES)
__all__ = ["ROUTES"]
