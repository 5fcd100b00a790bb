"""The body of POST /stream. It is read within a bound and checked completely before anything is stored.

Errors are checked in this order: 415 the type is not JSON, 413 too large, 400 the text is not JSON, 422 a
rule is broken.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway.protocol.errors import Invalid, Malformed, NotJson, NotLines, TooLarge
from gateway.runtime.off_loop import aside
from gateway.settings import Settings
from gateway.streams import params as chain_params
from gateway.streams.again import Again
from gateway.streams.images import check_input
from gateway.streams.messages import conversation
from gateway.streams.strict_json import DEFAULT, Bounds, check_text, parse_json, shown
from gateway.webhooks import asked as hooks
from gateway.webhooks.asked import Webhook

__all__ = [
    "BODY_SECONDS",
    "DEFAULT",
    "DEFAULT_CHAIN",
    "JSON",
    "LINES",
    "MAX_METADATA_BYTES",
    "STRATEGIES",
    "THREAD",
    "Bounds",
    "Start",
    "as_it_is",
    "check_text",
    "check_thread",
    "parse_json",
    "parse_sample",
    "parse_start",
    "read",
    "read_in_time",
    "read_json",
    "shown",
]

DEFAULT_CHAIN = Settings().default_chain
MOST_LISTED = 20  # chains that a refusal lists at most
MAX_METADATA_BYTES = 4096
BODY_SECONDS = 30.0
JSON, LINES = "application/json", "application/x-ndjson"
T = TypeVar("T")
STRATEGIES = ("reject", "enqueue", "interrupt", "rollback")  # values of `multitask_strategy`
# When percent-encoded, the name is one segment of a path. Names with the prefix `stream:` are reserved for
# streams' own threads.
THREAD = re.compile(r"(?!\.{1,2}$|stream:)[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")
_FIELDS = (
    "user",
    "messages",
    "input",
    "chain",
    "params",
    "context",
    "metadata",
    "thread",
    "multitask_strategy",
    "webhook",
)
_INPUTS = ("user", "messages", "input")


@dataclass(frozen=True, slots=True)
class Start:
    """A client's request to run a chain.

    `input` is `{"messages": [...]}` or `{"input": <any JSON>}`.
    """

    chain: str
    input: Mapping[str, Any] = field(repr=False)
    params: Mapping[str, Any] = field(repr=False)
    metadata: Any = None
    sent: str = ""  # the field in which the client sent the input
    thread: str = ""  # the name of the thread; empty: there is none
    strategy: str = STRATEGIES[0]  # what to do if another stream of the thread runs
    # An open question of the thread is dropped, instead of refusing this stream.
    lapses: bool = False
    # In the form of `input`: the new part, for a graph that has stored the rest itself.
    turn: Any = field(default=None, repr=False)
    # the graph's options, as the record stores them
    graph: Mapping[str, Any] | None = field(default=None, repr=False)
    # The input contains everything that was said in the thread before.
    whole: bool = False
    # Nothing of the input is stored after the run: if the run fails, it cannot be retried.
    unstored: bool = False
    keeps: tuple[str, Any] | None = field(
        default=None, repr=False
    )  # the name of a format, and the data that it needs later
    # The thread's newest stream must be this one; `*`: any stream.
    after: str = "*"
    again: Again | None = None  # the failed stream that this one tries again
    webhook: Webhook | None = None  # the webhook that is sent at the end
    once: str = ""  # a repeated key is compared by this text instead of the body

    @property
    def tells(self) -> bool:
        """Whether the stream has a webhook, also one taken over from the stream that it tries again."""
        return self.webhook is not None or (self.again is not None and "webhook" in self.again.own)

    @property
    def digest(self) -> str:
        """SHA-256 in hex of the request. It is the same for equal JSON, however the body is written."""
        if self.once:
            return hashlib.sha256(self.once.encode()).hexdigest()
        whole = [self.chain, self.input, self.params, self.metadata]
        whole += [self.thread, self.strategy] if self.thread else []
        whole += [self.webhook.told()] if self.webhook else []
        if self.again is not None:
            whole = [self.again.retries, self.again.wanted]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def as_it_is(value: Any) -> Any:
    """Return the body unchanged, for a handler that reads a few fields itself."""
    return value


async def read_json(
    request: Request, bounds: Bounds, then: Callable[[Any], T], owner: str = "", kind: str = JSON
) -> T:
    """Return the result of `then` for the JSON body, if the body arrives in time. `kind` as in `read`.

    A large body is parsed, and read by `then`, in a thread (`runtime/off_loop.py`), in the turn of the caller
    `owner`. So `then` must not use data that other threads change.

    Raises NotJson, TooLarge or Malformed, Invalid for the body's nesting, lists or names, or what `then`
    raises.
    """
    body = await read_in_time(request, bounds, kind)
    return await aside(len(body), lambda: then(parse_json(body, bounds)), owner)


async def read_in_time(request: Request, bounds: Bounds, kind: str = JSON) -> bytes:
    """Return the body's bytes, if they arrive in time. Raises what `read` raises, or Malformed."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await read(request, bounds, kind)
    except TimeoutError as error:
        raise Malformed(f"the body was not here within {BODY_SECONDS:g} s") from error


async def read(request: Request, bounds: Bounds, kind: str = JSON) -> bytes:
    """Return the body's bytes, however long they take to arrive.

    `kind` is the required media type of the body; if it is empty, any type is accepted.

    Raises NotJson, or NotLines where `kind` is LINES, TooLarge or Malformed.
    """
    max_bytes = bounds.bytes
    if kind and request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise NotJson if kind == JSON else NotLines
    declared = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()) or int(declared[:20]) > max_bytes:
        raise TooLarge(f"the bound is {max_bytes} bytes")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise TooLarge(f"the bound is {max_bytes} bytes")
    except ClientDisconnect as error:
        raise Malformed("the body ended early") from error
    return bytes(body)


def parse_start(
    value: Any, chains: Mapping[str, Any], bounds: Bounds = DEFAULT, default: str = DEFAULT_CHAIN
) -> Start:
    """Check a body by the rules of POST /stream, for every format.

    Raises Invalid, which names the field and the rule.

    `default`: the chain of a request that names none.

    The field `context` has params too, under LangGraph's name. Names in the params that only the product or
    LangGraph may set are removed.
    """
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    for name in value:
        if name not in _FIELDS:
            raise Invalid(shown(name), "is not a field of this request")
    given = [name for name in _INPUTS if name in value]
    if len(given) != 1:
        raise Invalid("user, messages, input", "exactly one of them must be given")
    chain = value.get("chain", default)
    if not isinstance(chain, str) or chain not in chains:
        raise Invalid("chain", f"must be the name of a chain of this gateway: {listed(chains)}")
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise Invalid("params", "must be an object")
    context = value.get("context", {})
    if not isinstance(context, dict):
        raise Invalid("context", "must be an object")
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise Invalid("metadata", "must be an object")
    if metadata is not None and len(
        json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    ) > (MAX_METADATA_BYTES):
        raise Invalid("metadata", f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
    asked = _input(given[0], value[given[0]], bounds)
    own = chain_params.own(params | context)
    webhook = hooks.parse(value["webhook"], bounds.webhooks) if "webhook" in value else None
    return Start(chain, asked, own, metadata, given[0], *_thread(value), webhook=webhook)


def listed(chains: Mapping[str, Any]) -> str:
    """Return the names of the chains, at most as many as a refusal may list."""
    names = sorted(chains)
    return ", ".join(names[:MOST_LISTED]) + (", … (GET /chains lists all)" if names[MOST_LISTED:] else "")


def _thread(value: Mapping[str, Any]) -> tuple[str, str]:
    """Return the thread, or an empty string, and the strategy for a busy thread. Raises Invalid."""
    thread, strategy = value.get("thread", ""), value.get("multitask_strategy", STRATEGIES[0])
    if "thread" in value:
        check_thread("thread", thread)
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise Invalid("multitask_strategy", f"must be one of {', '.join(STRATEGIES)}")
    if "multitask_strategy" in value and not thread:
        raise Invalid("multitask_strategy", "needs a thread")
    return thread, strategy


def check_thread(where: str, name: Any) -> None:
    """Raise Invalid if the value cannot be the name of a thread."""
    if not isinstance(name, str) or not THREAD.fullmatch(name):
        raise Invalid(
            where,
            "must be 1 to 200 characters, without slashes and control characters, not . or .., "
            "and not begin with stream:",
        )


def parse_sample(
    value: Any, chains: Mapping[str, Any], bounds: Bounds = DEFAULT, default: str = DEFAULT_CHAIN
) -> Start:
    """Parse the original sample's body: `{"user": …}` and nothing else."""
    if isinstance(value, dict):
        for name in value:
            if name != "user":
                raise Invalid(shown(name), "is not a field of this request")
    return parse_start(value, chains, bounds, default)


def _input(kind: str, value: Any, bounds: Bounds) -> Mapping[str, Any]:
    if kind == "input":
        if isinstance(value, (dict, list)):
            check_input("input", value)
        return {"input": value}
    if kind == "user":
        if not isinstance(value, str) or not value.strip():
            raise Invalid("user", "must be a string that is not empty")
        check_text("user", value)
        return {"messages": [{"role": "user", "content": value}]}
    if not isinstance(value, list) or not value:
        raise Invalid("messages", "must be a list that is not empty")
    if len(value) > bounds.messages:
        raise Invalid("messages", f"must be at most {bounds.messages}")
    return {"messages": conversation("messages", value, bounds)}
