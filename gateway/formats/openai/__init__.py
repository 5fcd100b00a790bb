"""OpenAI's chat completions and Responses."""

from gateway.formats.openai import chat, models, responses

ROUTES = (*chat.ROUTES, *models.ROUTES, *responses.ROUTES)
__all__ = ["ROUTES"]
