"""In which form a question reaches a chain: a text, messages, or one of both under a name. No I/O.

A client asks by `user` or `messages`; both are kept as messages. What the chain is given is decided by what
it says that it takes: its JSON Schema, or what a worker finds in the chain itself
(`workers/chains/taking.py`).
The rule is a table in docs/chains.md. What a client sends as `input` is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Names of a mapping that a question goes to where several would do, the first that is there.
QUESTIONS = ("messages", "input", "question")
EARLIER = ("chat_history", "history")  # names that what was said before the question goes to
_MOST_REFERENCES = 16  # of a schema, one behind the other
_DEEPEST = 3  # mappings within mappings that are looked into
Message = Mapping[str, Any]
Make = Callable[[Sequence[Message]], Any]


class Kind(StrEnum):
    """What a question becomes."""

    TEXT = "text"  # the last user message's text
    MESSAGES = "messages"  # all messages
    EITHER = "either"  # a single user message's text; else all messages


@dataclass(frozen=True, slots=True)
class Shape:
    """What something takes, as far as it is known; of several words that are true each will do."""

    text: bool = False
    messages: bool = False
    mapping: bool = False
    other: bool = False  # a number, a list of texts, ...
    objects: bool = False  # messages must be LangChain's objects, not mappings
    plain: bool = False  # a text is better than messages where there is one
    last: bool = False  # it keeps what was said before, and is given the last message alone
    lenient: bool = False  # what it calls required may be left out
    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether anything is known."""
        return self.text or self.messages or self.mapping or self.other

    @property
    def names(self) -> dict[str, Shape]:
        """The members of the mapping, those first that must be there."""
        return {**self.required, **self.optional}


@dataclass(frozen=True, slots=True)
class Unclear:
    """No rule decides. `names`: of the mapping that it takes; `is_known`: it surely takes no messages."""

    names: tuple[str, ...] = ()
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """What a question becomes, and under which name of a mapping; without a name it is the whole."""

    kind: Kind
    key: str = ""
    earlier: str = ""  # the name that what was said before goes to
    last: bool = False  # the last message alone
    objects: bool = False

    def of(self, messages: Sequence[Message], make: Make = list) -> Any:
        """The conversation in this form; `make` makes what is handed out of a list of messages.

        Raises ValueError where a text is needed, and no message is a user's.
        """
        value = self._value(messages, make)
        if not self.key:
            return value
        if not self.earlier:
            return {self.key: value}
        return {self.key: value, self.earlier: make(messages[: _last(messages)])}

    def _value(self, messages: Sequence[Message], make: Make) -> Any:
        if self.kind is Kind.MESSAGES and not (self.last or self.earlier):
            return make(messages)
        if self.kind is Kind.EITHER and [message["role"] for message in messages] != ["user"]:
            return make(messages)
        asked = messages[_last(messages)]
        return make([asked]) if self.kind is Kind.MESSAGES else text_of(asked["content"])


def text_of(content: Any) -> str:
    """The text of a message's content: the content itself, or that of its parts that have one."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))


def _last(messages: Sequence[Message]) -> int:
    """The place of the last user message. Raises ValueError."""
    for place in reversed(range(len(messages))):
        if messages[place].get("role") == "user":
            return place
    raise ValueError("the messages hold no question: none is a user's")


def form_of(shape: Shape) -> Form | Unclear:
    """The rule, for a chain that is given the question alone."""
    if shape.messages and not shape.plain:
        return Form(Kind.MESSAGES, last=shape.last, objects=shape.objects)
    if shape.text:
        return Form(Kind.EITHER if shape.messages else Kind.TEXT)
    if not shape.mapping:
        return Unclear(is_known=shape.is_known)
    names = shape.names
    earlier = next((name for name in EARLIER if name in names and _keeps_messages(names[name])), "")
    needed = [name for name in shape.required if name != earlier]
    key = _key(shape, needed, [name for name in names if name != earlier])
    kind = _kind(key, names[key]) if key else None
    if kind is None:
        return Unclear(tuple(needed or names), is_known=True)
    return Form(kind, key, earlier, shape.last, names[key].objects or _has_objects(names, earlier))


def _key(shape: Shape, needed: Sequence[str], names: Sequence[str]) -> str:
    if len(needed) == 1:
        return needed[0]
    if needed and not shape.lenient:
        return ""
    named = [name for name in QUESTIONS if name in names]
    return (named or (names if len(names) == 1 else [""]))[0]


def _kind(key: str, shape: Shape) -> Kind | None:
    if not shape.is_known:
        return Kind.MESSAGES if key == QUESTIONS[0] else Kind.TEXT
    return Kind.TEXT if shape.text else Kind.MESSAGES if shape.messages else None


def _keeps_messages(shape: Shape) -> bool:
    return shape.messages or not shape.is_known


def _has_objects(names: Mapping[str, Shape], earlier: str) -> bool:
    return bool(earlier) and names[earlier].objects


def shape_of(schema: Any, *, root: Any = None, deep: int = 0) -> Shape:
    """What a JSON Schema takes."""
    root = schema if root is None else root
    found = list(_alternatives(schema, root))
    kinds = {kind for one in found for kind in _types(one)}
    lists = [one for one in found if "array" in _types(one)]
    kept = [one for one in lists if _may_hold_messages(one.get("items", True), root)]
    mapping = next((one for one in found if "object" in _types(one)), None)
    if deep > 0 and mapping is not None and _is_message(mapping):
        mapping = None  # one message in the place of a text
    members = mapping.get("properties", {}) if mapping is not None and deep < _DEEPEST else {}
    required = mapping.get("required", []) if mapping is not None and deep < _DEEPEST else []
    shapes = {name: shape_of(one, root=root, deep=deep + 1) for name, one in members.items()}
    return Shape(
        text="string" in kinds,
        messages=bool(kept),
        mapping=mapping is not None,
        other=bool(kinds - {"string", "array", "object", "null"}) or bool(lists and not kept),
        objects=any(_is_message(item) for one in kept for item in _alternatives(one.get("items", {}), root)),
        required={name: shapes.get(name, Shape()) for name in required},
        optional={name: one for name, one in shapes.items() if name not in required},
    )


def _alternatives(schema: Any, root: Any, steps: int = 0) -> Iterator[Mapping[str, Any]]:
    """What `$ref`, `anyOf`, `oneOf` and `allOf` lead to. A schema that takes anything has none."""
    if not isinstance(schema, Mapping) or steps > _MOST_REFERENCES:
        return
    if isinstance(where := schema.get("$ref"), str) and where.startswith("#"):
        yield from _alternatives(_found(root, where), root, steps + 1)
        return
    several = [one for word in ("anyOf", "oneOf", "allOf") for one in schema.get(word) or ()]
    for one in several:
        yield from _alternatives(one, root, steps + 1)
    if not several and _types(schema):
        yield schema


def _found(root: Any, where: str) -> Any:
    found = root
    for step in where[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema names, or that its words are for."""
    named = schema.get("type")
    if named is not None:
        return {named} if isinstance(named, str) else set(named)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if values:
        return {"string" if isinstance(value, str) else "other" for value in values}
    if "properties" in schema or "required" in schema:
        return {"object"}
    return {"array"} if "items" in schema else set()


def _may_hold_messages(items: Any, root: Any) -> bool:
    found = [kind for one in _alternatives(items, root) for kind in _types(one)]
    return not found or "object" in found


def _is_message(schema: Mapping[str, Any]) -> bool:
    """Whether this describes a message of LangChain's, as pydantic does it."""
    return str(schema.get("title", "")).endswith(("Message", "MessageChunk")) and "type" in schema.get(
        "properties", {}
    )
