"""`chat`: one question to one model, the chain behind the original sample.

With `AZURE_OPENAI_ENDPOINT` it is Azure OpenAI: by `AzureChatOpenAI` with a dated `OPENAI_API_VERSION`, by
`ChatOpenAI` with `v1`. Else it is `ChatOpenAI` and any OpenAI-compatible server. On Azure a key is used where
there is one; where there is none, the process's identity.
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

# Where AzureChatOpenAI itself looks; a token provider beside a key would win over it.
KEYS = ["AZURE_OPENAI_API_KEY", "OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"]

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

_instead: ContextVar[BaseChatModel | None] = ContextVar("instead", default=None)


@chain("chat", input=ASKED)
def chat(settings: Settings) -> Runnable[Any, Any]:
    """The chat model itself: messages in, chunks out."""
    return model(settings)


def model(settings: Settings) -> BaseChatModel:
    """The configured chat model. Usage is asked for, since LangChain does not once a base URL is given.

    It does not try again by itself: a stage does, a fixed number of times, and with the lease renewed.
    In a test of a chain it is the model that the test gives (`answered_by`).
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
    """Within it `model` gives this one, also in the tasks and threads that begin there."""
    token = _instead.set(instead)
    try:
        yield
    finally:
        _instead.reset(token)


def uses_v1(settings: Settings) -> bool:
    """Whether Azure OpenAI is called by its API without dates, OpenAI's own at another address."""
    return bool(settings.azure_openai_endpoint) and settings.azure_openai_version == "v1"


def v1(settings: Settings) -> dict[str, Any]:
    """Address and credential of that API, for the clients of OpenAI; a token is asked for at each request."""
    from langchain_core.utils import secret_from_env

    key = secret_from_env(KEYS, default=None)()
    return {
        "base_url": f"{settings.azure_openai_endpoint.rstrip('/')}/openai/v1/",
        "api_key": key or credentials.openai_token_provider(settings),
    }


def check_configured(settings: Settings) -> None:
    """Raises WrongChain, which names the settings that are missing."""
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
    """Whether Azure OpenAI is signed in to by key; else the process's identity does."""
    from langchain_core.utils import secret_from_env

    return secret_from_env(KEYS, default=None)() is not None
