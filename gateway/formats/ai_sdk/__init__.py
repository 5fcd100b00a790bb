"""The UI message stream of Vercel's AI SDK."""

from gateway.formats.ai_sdk import chat

ROUTES = (*chat.ROUTES,)
__all__ = ["ROUTES"]
