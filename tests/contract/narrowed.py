"""Hooks that tell Schemathesis about this protocol. Schemathesis loads this module.

Every check is on, for every operation. A failure is dropped only for one of the reasons in `BY_PROTOCOL`.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData, UnsupportedMethodResponse, UseAfterFree

from gateway.streams import messages

FOLLOW = "GET /stream/{id}"
schemathesis.serializer.alias("application/x-ndjson", "text/plain")


def _still_to_be_read(failure: Failure, case: Case[Any], response: Response) -> bool:
    """DELETE ends a stream but does not remove it: text and status can still be read."""
    return isinstance(failure, UseAfterFree)


def _key_used_before(failure: Failure, case: Case[Any], response: Response) -> bool:
    """Whether a body is valid for its Idempotency-Key depends on the earlier body with this key."""
    conflict = b'"idempotency_key_reused"' in response.content
    return isinstance(failure, RejectedPositiveData) and conflict and "Idempotency-Key" in case.headers


def _answered_by_the_platform(failure: Failure, case: Case[Any], response: Response) -> bool:
    """The platform itself answers a path or method that no function has: 404, without a body."""
    unrouted = response.status_code == 404 and not response.content
    return isinstance(failure, UnsupportedMethodResponse) and unrouted


def _too_large_to_be_read(failure: Failure, case: Case[Any], response: Response) -> bool:
    """413 is a refusal, too, but Schemathesis does not count it as a refusal of a wrong body."""
    return isinstance(failure, AcceptedNegativeData) and response.status_code == 413


def _bound_within_an_input(failure: Failure, case: Case[Any], response: Response) -> bool:
    """A chain's schema does not contain the gateway's limits. The document describes them next to the
    schema."""
    bounded = b"a name may have" in response.content or b"members" in response.content
    with_input = isinstance(case.body, dict) and "input" in case.body
    return isinstance(failure, RejectedPositiveData) and bounded and with_input


def _conversation_out_of_order(failure: Failure, case: Case[Any], response: Response) -> bool:
    """No schema can say that a call must precede its answer, or that a text is the JSON of an object."""
    rules = (messages.UNASKED.encode(), messages.ARGUMENTS.encode())
    return isinstance(failure, RejectedPositiveData) and any(rule in response.content for rule in rules)


def _method_of_langgraph(failure: Failure, case: Case[Any], response: Response) -> bool:
    """The paths of threads also serve LangGraph's clients, with methods that docs/formats.md describes."""
    shared = case.operation.path in ("/threads", "/threads/{thread}")
    return isinstance(failure, UnsupportedMethodResponse) and shared


def _question_answered_twice(failure: Failure, case: Case[Any], response: Response) -> bool:
    """No schema can say that one field must differ between the objects of a list."""
    return isinstance(failure, RejectedPositiveData) and b"is answered twice" in response.content


def _webhook_that_may_not_be_asked(failure: Failure, case: Case[Any], response: Response) -> bool:
    """Which URLs are public depends on addresses and settings; no schema can say it."""
    return isinstance(failure, RejectedPositiveData) and b'"field": "webhook"' in response.content


BY_PROTOCOL = (
    _webhook_that_may_not_be_asked,
    _method_of_langgraph,
    _question_answered_twice,
    _conversation_out_of_order,
    _bound_within_an_input,
    _too_large_to_be_read,
    _still_to_be_read,
    _key_used_before,
    _answered_by_the_platform,
)


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Return whether this failure counts."""
    return not any(reason(failure, case, response) for reason in BY_PROTOCOL)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Request each kind of answer in turn: the document lists the kinds, but OpenAPI does not generate
    Accept."""
    kinds = {
        FOLLOW: ("text/event-stream", "application/json", "*/*"),
        "POST /stream": ("*/*", "text/event-stream"),
    }
    asked = kinds.get(case.operation.label)
    if asked:
        case.headers["Accept"] = asked[sum(case.id.encode()) % len(asked)]
