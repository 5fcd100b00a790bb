"""Stable error codes for what a chain raises, made from langchain-core's error classes.

The message is ours; the exception's text, which may quote a prompt or a key, goes nowhere.
"""

from __future__ import annotations

import asyncio

from gateway import protocol
from gateway.protocol import Event

# The first name here that one of the exception's classes bears decides. So langchain-core's stand before
# openai's: an OpenAIRateLimitError is an APIError first, and a ModelRateLimitError only then.
# By name, as LangChain is not imported for a failure's sake.
_CODES = {
    "ModelRateLimitError": ("model_rate_limited", "The model's rate limit was reached."),
    "ModelAuthenticationError": (
        "model_authentication",
        "The model refused the gateway's credentials.",
    ),
    "ModelPermissionDeniedError": (
        "model_permission_denied",
        "The gateway may not use this model.",
    ),
    "ContextOverflowError": ("context_overflow", "The input is longer than the model's context."),
    "ModelInvalidRequestError": ("model_invalid_request", "The model refused the request."),
    "ModelNotFoundError": ("model_not_found", "There is no such model."),
    "ModelTimeoutError": ("model_timeout", "The model did not answer in time."),
    "StreamChunkTimeoutError": ("model_timeout", "The model stopped answering."),
    "ModelConnectionError": ("model_connection", "The model could not be reached."),
    "APITimeoutError": ("model_timeout", "The model did not answer in time."),
    "APIConnectionError": ("model_connection", "The connection to the model was cut."),
    "TransportError": ("model_connection", "The connection to the model was cut."),
    "ModelAPIError": ("model_error", "The model's server failed."),
    "APIError": ("model_error", "The model's server failed."),
}
_RETRYABLE = {"model_rate_limited", "model_timeout", "model_connection", "model_error"}
ATTEMPTS_EXHAUSTED = protocol.failed(
    "attempts_exhausted", "The job was tried too often without coming to an end.", retryable=True
)
UNKNOWN_CHAIN = protocol.failed("unknown_chain", "This release has no such chain.", retryable=False)
UNSUPPORTED_VERSION = protocol.failed(
    "unsupported_version",
    "The stream was made by a release that this one does not know.",
    retryable=True,
)
OUTPUT_LIMIT = protocol.failed(
    "output_limit", "The chain said more than this gateway allows.", retryable=False
)
TOO_LONG = protocol.failed("too_long", "The answer is longer than this gateway keeps.", retryable=False)


def may_pass(error: BaseException) -> bool:
    """Whether the model may answer the same request later: as its class says, else by its code."""
    said = getattr(error, "is_retryable", None)
    return said if isinstance(said, bool) else failure(error).data["code"] in _RETRYABLE


def failure(error: BaseException) -> Event:
    """The terminal event for an exception of a chain."""
    names = {kind.__name__ for kind in type(error).__mro__}
    for name, (code, message) in _CODES.items():
        if name in names:
            return protocol.failed(code, message, retryable=code in _RETRYABLE)
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return protocol.failed("timeout", "The chain did not answer in time.", retryable=True)
    return protocol.failed("chain_error", "The chain failed.", retryable=False)
