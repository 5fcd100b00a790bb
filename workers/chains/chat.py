"""`chat`: send one question to one model. This is the chain of the original sample.

With `AZURE_OPENAI_ENDPOINT` the model is on Azure OpenAI. A dated `OPENAI_API_VERSION` uses
`AzureChatOpenAI`, and `v1` uses `ChatOpenAI`. Without an endpoint, `ChatOpenAI` calls OpenAI or any
OpenAI-compatible server. On Azure a key is used when one is set; otherwise the identity of the process is
used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from gateway.azure import credentials
from gateway.protocol.errors import WrongChain
from gateway.settings import Settings
from workers.chains.asked import ASKED
from workers.chains.registry import chain

# The environment variables that AzureChatOpenAI reads itself. If a token provider were given too, it would be
# used instead of the key.
KEYS = ["AZURE_OPENAI_API_KEY", "OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"]

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

_instead: ContextVar[BaseChatModel | None] = ContextVar("instead", default=None)


@chain("chat", input=ASKED)
def chat(settings: Settings) -> Runnable[Any, Any]:
    """Return the chat model itself: it receives messages and yields chunks."""
    return model(settings)


def model(settings: Settings) -> BaseChatModel:
    """Return the configured chat model.

    The model is asked to report its usage, because LangChain does not ask for it when a base URL is set. The
    model does not retry by itself. The stage retries a fixed number of times, and the lease is renewed in
    that time. In a test of a chain, this returns the model that the test passes to `answered_by`.
    """
    if (instead := _instead.get()) is not None:
        return instead
    check_configured(settings)
    from langchain_openai import AzureChatOpenAI, ChatOpenAI

    from workers.langchain.calls import UNMARKED

    lacks = settings.model_lacks.split()
    given: dict[str, Any] = {"max_retries": 0, "stream_usage": "stream_options" not in lacks}
    if "finish_reason" in lacks:
        given["tags"] = [UNMARKED]
    if uses_v1(settings):
        return ChatOpenAI(model=settings.model, **v1(settings), **given)
    if settings.azure_openai_endpoint:
        if not has_key():
            given["azure_ad_async_token_provider"] = credentials.openai_token_provider(settings)
        return AzureChatOpenAI(
            azure_endpoint=settings.azure_openai_endpoint,
            azure_deployment=settings.model,
            **given,
        )
    if settings.openai_base_url:
        given["base_url"] = settings.openai_base_url
    if settings.openai_api_key:
        given["api_key"] = settings.openai_api_key
    return ChatOpenAI(model=settings.model, **given)


@contextmanager
def answered_by(instead: BaseChatModel) -> Iterator[None]:
    """Make `model` return `instead` inside the `with` block, and in tasks and threads that begin there."""
    token = _instead.set(instead)
    try:
        yield
    finally:
        _instead.reset(token)


def uses_v1(settings: Settings) -> bool:
    """Return whether Azure OpenAI is called by its `v1` API (OpenAI's own API at another address)."""
    return bool(settings.azure_openai_endpoint) and settings.azure_openai_version == "v1"


def v1(settings: Settings) -> dict[str, Any]:
    """Return the address and credential of the `v1` API, for OpenAI's clients.

    Each request asks for a token.
    """
    from langchain_core.utils import secret_from_env

    key = secret_from_env(KEYS, default=None)()
    return {
        "base_url": f"{settings.azure_openai_endpoint.rstrip('/')}/openai/v1/",
        "api_key": key or credentials.openai_token_provider(settings),
    }


def check_configured(settings: Settings) -> None:
    """Check the settings of the model. Raises WrongChain, which names the missing settings."""
    from langchain_core.utils import from_env

    if settings.azure_openai_endpoint:
        if not settings.azure_openai_version and not from_env("OPENAI_API_VERSION", default="")():
            raise WrongChain(
                "the model lacks a setting: AZURE_OPENAI_ENDPOINT needs OPENAI_API_VERSION, v1 or a dated one"
            )
        return
    if has_key():
        return
    if settings.openai_base_url and not settings.openai_api_key:
        raise WrongChain(
            "the model lacks a setting: OPENAI_BASE_URL needs OPENAI_API_KEY; any text will do where the "
            "server asks for no key"
        )
    if not settings.openai_api_key:
        raise WrongChain(
            "no model is configured: set OPENAI_API_KEY, or OPENAI_BASE_URL for another server, or "
            "AZURE_OPENAI_ENDPOINT; GATEWAY_MODEL names the model"
        )


def has_key() -> bool:
    """Return whether a key is set for Azure OpenAI. Without one, the identity of the process is used."""
    from langchain_core.utils import secret_from_env

    return secret_from_env(KEYS, default=None)() is not None
