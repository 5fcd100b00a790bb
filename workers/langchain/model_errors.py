"""Classify a failed model call: a stable code, and whether the same request may succeed later.

The server's own words decide: first a code or type in the error's body, then the HTTP status, and only then
the class of the exception. Libraries use one class both for temporary and for permanent failures (a full
minute and an empty account are both 429). Statuses: RFC 9110, 15. Codes: OpenAI's and Anthropic's pages on
errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """The code of `failed`, this product's message for it, and whether the same request may succeed later."""

    code: str
    message: str
    passes: bool = False


RATE_LIMITED = Verdict("model_rate_limited", "The model's rate limit was reached.", passes=True)
NO_QUOTA = Verdict("model_rate_limited", "The quota of the model's account is used up.")
UNAUTHENTICATED = Verdict("model_authentication", "The model refused the gateway's credentials.")
FORBIDDEN = Verdict("model_permission_denied", "The gateway may not use this model.")
OVERFLOW = Verdict("context_overflow", "The input is longer than the model's context.")
INVALID = Verdict("model_invalid_request", "The model refused the request.")
FILTERED = Verdict("model_invalid_request", "The content filter of the model's server refused the request.")
NOT_FOUND = Verdict("model_not_found", "There is no such model.")
NO_SERVER = Verdict("model_not_found", "The model's server does not answer requests at this address.")
UNANSWERED = Verdict("model_timeout", "The model did not answer in time.", passes=True)
STALLED = Verdict("model_timeout", "The model stopped answering.", passes=True)
UNREACHABLE = Verdict("model_connection", "The model could not be reached.", passes=True)
CUT = Verdict("model_connection", "The connection to the model was cut.", passes=True)
BROKEN = Verdict("model_error", "The model's server failed.", passes=True)

# The first name here that is a class of the exception decides. So the classes of langchain-core are before
# those of openai: an OpenAIRateLimitError is both an APIError and a ModelRateLimitError. Names are used,
# because LangChain is not imported only for a failure.
CLASSES = {
    "CutOff": CUT,
    "ModelRateLimitError": RATE_LIMITED,
    "ModelAuthenticationError": UNAUTHENTICATED,
    "ModelPermissionDeniedError": FORBIDDEN,
    "ContextOverflowError": OVERFLOW,
    "ModelInvalidRequestError": INVALID,
    "ModelNotFoundError": NOT_FOUND,
    "ModelTimeoutError": UNANSWERED,
    "StreamChunkTimeoutError": STALLED,
    "ModelConnectionError": UNREACHABLE,
    "APITimeoutError": UNANSWERED,
    "APIConnectionError": CUT,
    "TransportError": CUT,
    "ModelAPIError": BROKEN,
    "APIError": BROKEN,
}
# These codes decide before the status, because the same status is used for temporary and permanent failures.
_PRECISE = {
    "context_length_exceeded": OVERFLOW,
    "model_context_window_exceeded": OVERFLOW,
    "insufficient_quota": NO_QUOTA,
    "billing_error": NO_QUOTA,
    "billing_not_active": NO_QUOTA,
    "billing_hard_limit_reached": NO_QUOTA,
    "credit_balance_too_low": NO_QUOTA,
    "content_filter": FILTERED,
    "content_policy_violation": FILTERED,
    "responsibleaipolicyviolation": FILTERED,
}
# These codes decide when no status is known: for an error that comes within a stream.
_GENERAL = {
    "rate_limit_exceeded": RATE_LIMITED,
    "rate_limit_error": RATE_LIMITED,
    "too_many_requests": RATE_LIMITED,
    "resource_exhausted": RATE_LIMITED,
    "authentication_error": UNAUTHENTICATED,
    "invalid_api_key": UNAUTHENTICATED,
    "unauthenticated": UNAUTHENTICATED,
    "permission_error": FORBIDDEN,
    "permission_denied": FORBIDDEN,
    "model_not_found": NOT_FOUND,
    "not_found_error": NOT_FOUND,
    "invalid_request_error": INVALID,
    "invalid_argument": INVALID,
    "invalid_prompt": INVALID,
    "request_too_large": INVALID,
    "timeout": UNANSWERED,
    "timeout_error": UNANSWERED,
    "deadline_exceeded": UNANSWERED,
    "server_error": BROKEN,
    "api_error": BROKEN,
    "overloaded_error": BROKEN,
    "internal_server_error": BROKEN,
    "unavailable": BROKEN,
}
_STATUSES = {
    401: UNAUTHENTICATED,
    402: FORBIDDEN,
    403: FORBIDDEN,
    404: NOT_FOUND,
    405: NO_SERVER,
    408: UNANSWERED,
    409: BROKEN,  # as in OpenAI's own client: a lock time-out
    410: NOT_FOUND,
    425: BROKEN,
    429: RATE_LIMITED,
    451: FORBIDDEN,
}
_CHAT_MODELS = ("langchain_core.language_models.chat_models", "langchain_core.language_models.llms")
_CLIENTS = ("openai", "anthropic", "httpx", "httpx2", "google.genai", "ollama")
# The functions with which langchain-openai reads an answer. An error in them is not about the request.
_READING = "langchain_openai."
READERS = frozenset(
    {
        "_create_chat_result",
        "_convert_chunk_to_generation_chunk",
        "_convert_delta_to_message_chunk",
        "_convert_responses_chunk_to_generation_chunk",
        "_construct_lc_result_from_responses_api",
        "_coerce_chunk_response",
        "_astream",
        "_stream",
        "_astream_responses",
        "_stream_responses",
    }
)
# langchain-core's messages for a stream that ended before anything came.
NOTHING_CAME = ("No generation chunks were returned", "No generations found in stream.")
_LEADING_CODE = re.compile(r"(?:\w+\()?(?:code=')?([a-z_]+)(?:'|:)")


def verdict(error: BaseException) -> Verdict | None:
    """Return what a failure means if it is a model's failure. Return None for any other failure."""
    names = {kind.__name__ for kind in type(error).__mro__}
    known = next((said for name, said in CLASSES.items() if name in names), None)
    modules = [
        (frame.f_globals.get("__name__", ""), frame.f_code.co_name)
        for frame, _ in walk_tb(error.__traceback__)
    ]
    within = any(module in _CHAT_MODELS for module, _ in modules)
    if known is None and not (within and isinstance(error, Exception)):
        return None
    words = list(_words(error, within))
    if precise := next((_PRECISE[word] for word in words if word in _PRECISE), None):
        return precise
    if known is OVERFLOW or known in (UNANSWERED, STALLED, UNREACHABLE, CUT):
        return known
    status = _status(error, words)
    if by_status := _of_status(status):
        return by_status
    if general := next((_GENERAL[word] for word in words if word in _GENERAL), None):
        return general
    return known or (BROKEN if _unreadable(error, modules) else None)


def _of_status(status: int) -> Verdict | None:
    if status in _STATUSES:
        return _STATUSES[status]
    if 300 <= status < 400:
        return NO_SERVER
    if 400 <= status < 500:
        return INVALID
    return BROKEN if status >= 500 else None


def _status(error: BaseException, words: list[str]) -> int:
    """Return the server's HTTP status, also from a code within a stream. 0: no error status is known."""
    said = [
        getattr(error, "status_code", None),
        getattr(getattr(error, "response", None), "status_code", None),
        getattr(error, "code", None),
        *(int(word) for word in words if re.fullmatch("[3-5][0-9][0-9]", word)),
    ]
    return next((status for status in said if type(status) is int and 300 <= status < 600), 0)


def _words(error: BaseException, within: bool) -> Iterator[str]:
    """Yield the server's codes and types in lower case, the most precise first."""
    body: Any = getattr(error, "body", None)
    for _ in range(3):  # Anthropic: {"error": {...}}; Azure: {..., "innererror": {...}}
        if not isinstance(body, Mapping):
            break
        for name in ("code", "type", "status"):
            if isinstance(body.get(name), str | int):
                yield str(body[name]).lower()
        body = body.get("error") or body.get("innererror")
    for name in ("code", "type", "status"):
        if isinstance(said := getattr(error, name, None), str):
            yield said.lower()
    # langchain-openai raises a ValueError for an `error` event and for `response.failed`. Its text begins
    # with the code.
    if within and type(error) is ValueError and (leading := _LEADING_CODE.match(str(error))):
        yield leading[1]


def _unreadable(error: BaseException, modules: list[tuple[str, str]]) -> bool:
    """Return whether an answer of the server could not be read: no event, no JSON, or an unknown form."""
    if isinstance(error, ValueError) and str(error).startswith(NOTHING_CAME):
        return True
    module, function = next(((m, f) for m, f in reversed(modules) if not m.startswith("json")), ("", ""))
    if isinstance(error, json.JSONDecodeError) and function != "_get_request_payload":
        return True
    if module.startswith(_READING):
        return function in READERS
    return any(module == one or module.startswith(f"{one}.") for one in _CLIENTS)
