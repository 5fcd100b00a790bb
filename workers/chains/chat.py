"""`chat`: one question to one model, the chain behind the original sample.

`AzureChatOpenAI` when `AZURE_OPENAI_ENDPOINT` is set, else `ChatOpenAI` (any OpenAI-compatible server).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from workers.chains.registry import chain

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable


@chain("chat")
def chat(settings: Settings) -> Runnable[Any, Any]:
    """The chat model itself: messages in, chunks out."""
    return model(settings)


def model(settings: Settings) -> BaseChatModel:
    """The configured chat model; usage is asked for, since it is off as soon as a base URL is given."""
    from langchain_openai import AzureChatOpenAI, ChatOpenAI

    if settings.azure_openai_endpoint:
        return AzureChatOpenAI(
            azure_endpoint=settings.azure_openai_endpoint,
            azure_deployment=settings.model,
            stream_usage=True,
        )
    given: dict[str, Any] = {}
    if settings.openai_base_url:
        given["base_url"] = settings.openai_base_url
    if settings.openai_api_key:
        given["api_key"] = settings.openai_api_key
    return ChatOpenAI(model=settings.model, stream_usage=True, **given)
