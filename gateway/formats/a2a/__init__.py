"""A2A 1.0: a chain is an agent, a stream a task, a thread a context."""

from gateway.formats.a2a import card, rpc

ROUTES = (*card.ROUTES, *rpc.ROUTES)
__all__ = ["ROUTES"]
