"""What OpenAI's two formats share: errors as their clients read them, ids, tokens.

Their clients repeat a POST by themselves, without an Idempotency-Key: so each error says whether to
(`x-should-retry`), and does not where a run may have begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from starlette.responses import Response

from gateway.protocol.errors import (
    HoldfastError,
    StoreUnavailable,
    StreamNotFound,
    TooManyReaders,
)
from gateway.store.record import Record
from gateway.streams.strict_json import shown
from gateway.web.answers import json_answer

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ModelNotFound(HoldfastError):
    """There is no such model: a model is a chain of this gateway."""

    status = 404
    code = "model_not_found"


class NoPrevious(HoldfastError):
    """There is no such response to go on from, or none that was stored."""

    status = 400
    code = "previous_response_not_found"

    def __init__(self, previous: str) -> None:
        super().__init__(
            f"Previous response with id '{shown(previous)}' not found.", field="previous_response_id"
        )


class Unfinished(HoldfastError):
    """The run goes on without this request, which could not wait for its end: follow it by its id."""

    status = 504
    code = "unfinished"


def error_of(message: str, code: str, status: int, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object, as an answer and in a stream."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refusal(error: HoldfastError) -> Response:
    """The shape of errors."""
    given = error.extensions
    headers = dict(where(given["stream"])) if "stream" in given else {}
    headers["x-should-retry"] = "false" if error.retry_after_seconds is None else "true"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    told = error_of(error.detail, error.code, error.status, given.get("field"))
    return json_answer(told, error.status, headers)


def where(stream_id: str) -> Mapping[str, str]:
    """Headers that say where the stream is, in our own format."""
    return {"location": f"/stream/{stream_id}", "x-stream-id": stream_id}


def seconds(created_at: str) -> int:
    """An RFC 3339 time as a Unix time, as OpenAI has it."""
    return int(datetime.fromisoformat(created_at).timestamp())


def tokens(usage: Mapping[str, int] | None) -> tuple[int, int, int]:
    """Tokens of input, of output, of both; zeros where the model sends none."""
    told = usage or {}
    given, said = told.get("input_tokens", 0), told.get("output_tokens", 0)
    return given, said, told.get("total_tokens", given + said)


def pages_of(cited: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Of what a model cites the pages: `url`, and what is known of `title`, `start_index` and `end_index`."""
    for one in cited:
        page = one.get("url_citation", one) if isinstance(one, dict) else None
        if isinstance(page, dict) and isinstance(page.get("url"), str):
            yield {name: page[name] for name in ("url", "title", "start_index", "end_index") if name in page}


@contextmanager
def begun(record: Record) -> Iterator[None]:
    """The run goes on, whatever fails here: no client is to start another. Raises Unfinished."""
    try:
        yield
    except (StoreUnavailable, TooManyReaders):
        raise Unfinished(stream=record.id) from None


def unknown(field: str) -> StreamNotFound:
    """A field names a stream that this caller does not have."""
    return StreamNotFound(field=field)
