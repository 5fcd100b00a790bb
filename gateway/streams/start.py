"""The body of POST /stream: read within a bound, checked against every rule, before anything is stored.

Order of the answers: 415 not JSON by its type, 413 too large, 400 not JSON by its text, 422 a broken rule.
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
MOST_LISTED = 20  # chains that a refusal names
MAX_METADATA_BYTES = 4096
BODY_SECONDS = 30.0
JSON, LINES = "application/json", "application/x-ndjson"
T = TypeVar("T")
STRATEGIES = ("reject", "enqueue", "interrupt", "rollback")  # of `multitask_strategy`
# Percent-encoded it is one segment of a path. `stream:` begins the names of streams' own threads.
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
    """What a client asks to be run. `input` is `{"messages": [...]}` or `{"input": <any JSON>}`."""

    chain: str
    input: Mapping[str, Any] = field(repr=False)
    params: Mapping[str, Any] = field(repr=False)
    metadata: Any = None
    sent: str = ""  # the field that the client has sent it in
    thread: str = ""  # empty: none
    strategy: str = STRATEGIES[0]  # where another stream of the thread runs
    lapses: bool = False  # an open question of the thread does, instead of refusing this stream
    turn: Any = field(default=None, repr=False)  # as `input`: what a graph is given that has the rest itself
    graph: Mapping[str, Any] | None = field(default=None, repr=False)  # as the record has it
    whole: bool = False  # the input has all that was said in the thread before
    unstored: bool = False  # nothing of the input outlives the run: if it fails, there is no retry
    keeps: tuple[str, Any] | None = field(
        default=None, repr=False
    )  # a format's name, and what it needs later
    after: str = "*"  # the thread's newest stream that this one goes on from; `*`: whichever it is
    again: Again | None = None  # the failed stream of which this is another try
    webhook: Webhook | None = None  # whom to tell of the end
    once: str = ""  # what a repeated key is held against, instead of the body

    @property
    def tells(self) -> bool:
        """Whether it has a webhook, also one that it has from the stream that it tries again."""
        return self.webhook is not None or (self.again is not None and "webhook" in self.again.own)

    @property
    def digest(self) -> str:
        """SHA-256 in hex of what was asked, the same for the same body however it is spelled."""
        if self.once:
            return hashlib.sha256(self.once.encode()).hexdigest()
        whole = [self.chain, self.input, self.params, self.metadata]
        whole += [self.thread, self.strategy] if self.thread else []
        whole += [self.webhook.told()] if self.webhook else []
        if self.again is not None:
            whole = [self.again.retries, self.again.wanted]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def as_it_is(value: Any) -> Any:
    """For a body that its handler reads itself: it takes a few fields."""
    return value


async def read_json(
    request: Request, bounds: Bounds, then: Callable[[Any], T], owner: str = "", kind: str = JSON
) -> T:
    """What `then` makes of the body, which is JSON, if it comes in time. `kind` as in `read`.

    A large body is parsed, and read by `then`, in a thread (`runtime/off_loop.py`), in the turn of the
    caller `owner`: so `then` touches nothing that others change.

    Raises NotJson, TooLarge or Malformed, Invalid for the body's nesting, lists or names, or what `then`
    raises.
    """
    body = await read_in_time(request, bounds, kind)
    return await aside(len(body), lambda: then(parse_json(body, bounds)), owner)


async def read_in_time(request: Request, bounds: Bounds, kind: str = JSON) -> bytes:
    """The body's bytes, if they come in time. Raises as `read`."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await read(request, bounds, kind)
    except TimeoutError as error:
        raise Malformed(f"the body was not here within {BODY_SECONDS:g} s") from error


async def read(request: Request, bounds: Bounds, kind: str = JSON) -> bytes:
    """The body's bytes, however long they take to come. `kind`: its type; empty: whichever.

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
    """The rules of POST /stream, for every format. Raises Invalid, which names the field and the rule.

    `default`: the chain of a request that names none.

    `context` are params too, under LangGraph's name. Names in them that only the product or LangGraph may set
    are taken out.
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
    """The names of the chains, as many as a refusal may list."""
    names = sorted(chains)
    return ", ".join(names[:MOST_LISTED]) + (", … (GET /chains lists all)" if names[MOST_LISTED:] else "")


def _thread(value: Mapping[str, Any]) -> tuple[str, str]:
    """The thread, or an empty string, and what happens where another stream of it runs. Raises Invalid."""
    thread, strategy = value.get("thread", ""), value.get("multitask_strategy", STRATEGIES[0])
    if "thread" in value:
        check_thread("thread", thread)
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise Invalid("multitask_strategy", f"must be one of {', '.join(STRATEGIES)}")
    if "multitask_strategy" in value and not thread:
        raise Invalid("multitask_strategy", "needs a thread")
    return thread, strategy


def check_thread(where: str, name: Any) -> None:
    """Raises Invalid for what is no thread's name."""
    if not isinstance(name, str) or not THREAD.fullmatch(name):
        raise Invalid(
            where,
            "must be 1 to 200 characters, without slashes and control characters, not . or .., "
            "and not begin with stream:",
        )


def parse_sample(
    value: Any, chains: Mapping[str, Any], bounds: Bounds = DEFAULT, default: str = DEFAULT_CHAIN
) -> Start:
    """The original sample's body: `{"user": …}` and nothing else."""
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
