"""The body of POST /stream: read within a bound, checked against every rule, before anything is stored.

Order of the answers: 415 not JSON by its type, 413 too large, 400 not JSON by its text, 422 a broken rule.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway import params as chain_params
from gateway.aside import aside
from gateway.errors import Invalid, Malformed, NotJson, TooLarge
from gateway.images import check_input, check_parts
from gateway.settings import Settings

DEFAULT_CHAIN = "chat"
MAX_METADATA_BYTES = 4096
BODY_SECONDS = 30.0
T = TypeVar("T")
ROLES = ("system", "developer", "user", "assistant")
_FIELDS = ("user", "messages", "input", "chain", "params", "context", "metadata")
_INPUTS = ("user", "messages", "input")


@dataclass(frozen=True, slots=True)
class Start:
    """What a client asks to be run. `input` is `{"messages": [...]}` or `{"input": <any JSON>}`."""

    chain: str
    input: Mapping[str, Any] = field(repr=False)
    params: Mapping[str, Any] = field(repr=False)
    metadata: Any = None
    sent: str = ""  # the field that the client has sent it in

    @property
    def digest(self) -> str:
        """SHA-256 in hex of what was asked, the same for the same body however it is spelled."""
        whole = [self.chain, self.input, self.params, self.metadata]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a body may have: bytes, nesting, members of a list or object, messages, characters of a name."""

    bytes: int
    depth: int
    items: int
    messages: int
    name: int

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Those that are set."""
        lengths = settings.max_items, settings.max_messages, settings.max_name
        return cls(settings.max_body, settings.max_depth, *lengths)


DEFAULT = Bounds.of(Settings())


def as_it_is(value: Any) -> Any:
    """For a body that its handler reads itself: it takes a few fields."""
    return value


async def read_json(request: Request, bounds: Bounds, then: Callable[[Any], T], owner: str = "") -> T:
    """What `then` makes of the body, which is JSON, if it comes in time.

    A large body is parsed, and read by `then`, in a thread (`gateway.aside`), in the turn of the caller
    `owner`: so `then` touches nothing that others change. Raises NotJson, TooLarge or Malformed, Invalid for
    the body's nesting, lists or names, or what `then` raises.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await read(request, bounds)
    except TimeoutError as error:
        raise Malformed(f"the body was not here within {BODY_SECONDS:g} s") from error
    return await aside(len(body), lambda: then(parse_json(body, bounds)), owner)


async def read(request: Request, bounds: Bounds) -> bytes:
    """The body's bytes, however long they take to come. Raises NotJson, TooLarge or Malformed."""
    max_bytes = bounds.bytes
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise NotJson
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


def parse_json(body: bytes, bounds: Bounds = DEFAULT) -> Any:
    """Strict JSON: no NaN, no infinity. Raises Malformed, or Invalid for what passes a bound."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise _too_deep(bounds) from None
    except ValueError:
        raise Malformed("the body is not JSON in UTF-8") from None
    _check_shape(value, bounds)
    return value


def parse_start(value: Any, chains: Mapping[str, Any], bounds: Bounds = DEFAULT) -> Start:
    """The rules of POST /stream, for every format. Raises Invalid, which names the field and the rule.

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
    chain = value.get("chain", DEFAULT_CHAIN)
    if not isinstance(chain, str) or chain not in chains:
        raise Invalid("chain", "must be the name of a chain of this gateway")
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
    return Start(chain, asked, chain_params.own(params | context), metadata, sent=given[0])


def parse_sample(value: Any, chains: Mapping[str, Any], bounds: Bounds = DEFAULT) -> Start:
    """The original sample's body: `{"user": …}` and nothing else."""
    if isinstance(value, dict):
        for name in value:
            if name != "user":
                raise Invalid(shown(name), "is not a field of this request")
    return parse_start(value, chains, bounds)


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
    for index, message in enumerate(value):
        _check_message(f"messages[{index}]", message)
    return {"messages": value}


def _check_message(where: str, message: Any) -> None:
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise Invalid(where, "must be an object with role and content, and nothing else")
    if message["role"] not in ROLES:
        raise Invalid(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    content = message["content"]
    parts = (
        isinstance(content, list) and content and all(isinstance(p, dict) and "type" in p for p in content)
    )
    if not isinstance(content, str) and not parts:
        raise Invalid(f"{where}.content", "must be a string, or a list of content parts")
    if isinstance(content, str):
        check_text(f"{where}.content", content)
    check_parts(f"{where}.content", content)


def check_text(where: str, text: str) -> None:
    """What no model can be sent: JSON can spell half a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(where, "must be whole Unicode characters: it has half a surrogate pair") from None


def _check_shape(value: Any, bounds: Bounds) -> None:
    """Nesting, lists and names, found level by level."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        if depth > bounds.depth:
            raise _too_deep(bounds)
        for item in level:
            if len(item) > bounds.items:
                raise Invalid("body", f"a list or object may have {bounds.items} members")
            for name in item if isinstance(item, dict) else ():
                if len(name) > bounds.name:
                    raise Invalid(shown(name), f"a name may have {bounds.name} characters")
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]


def _too_deep(bounds: Bounds) -> Invalid:
    return Invalid("body", f"may be nested {bounds.depth} deep")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def shown(name: str) -> str:
    """A client's own field name, short and printable, for the answer."""
    return "".join(c if c.isprintable() else "?" for c in name[:64])
