"""Durable Streams, reading side."""

from gateway.formats.durable import endpoints

ROUTES = (*endpoints.ROUTES,)
__all__ = ["ROUTES"]
