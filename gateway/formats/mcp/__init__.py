"""MCP over Streamable HTTP: a chain is a tool, a call of it a stream."""

from gateway.formats.mcp import endpoints

ROUTES = (*endpoints.ROUTES,)
__all__ = ["ROUTES"]
