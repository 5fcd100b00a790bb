"""Vercel AI SDK's UI message stream."""

from gateway.formats.ai_sdk import chat

ROUTES = (*chat.ROUTES,)
__all__ = ["ROUTES"]
