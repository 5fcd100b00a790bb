"""The Durable Streams protocol, only for reading."""

from gateway.formats.durable import endpoints

ROUTES = (*endpoints.ROUTES,)
__all__ = ["ROUTES"]
