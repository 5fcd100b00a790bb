"""The form in which a chain receives a question: text, messages, or either under a name. No I/O.

A client sends `user` or `messages`; both are stored as messages. The form is decided by what the chain
declares: its JSON Schema, or what a worker finds in the chain itself (`workers/chains/taking.py`).

The rule is a table in docs/chains.md. What a client sends as `input` is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# ^Possible names for the question in a mapping. If several names fit, the first one that exists is used.
QUESTIONS = ("messages", "input", "question")
# Names for the messages that came before the question.
EARLIER = ("chat_history", "history")
# Limit of `$ref` steps in a schema, one after the other.
_MOST_REFERENCES = 16
# Mappings nested deeper than this are not examined.
_DEEPEST = 3
Message = Mapping[str, Any]
Make = Callable[[Sequence[Message]], Any]


class Kind(StrEnum):
    """The kind of value that a question becomes."""

    TEXT = "text"  # the text of the last user message
    MESSAGES = "messages"  # all messages
    # The text, if there is one user message and nothing else. Otherwise all messages.
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class Shape:
    """The values that a chain or a field accepts, as far as they are known.

    If several of the flags are true, any of these kinds of value is accepted.
    """

    text: bool = False
    messages: bool = False
    mapping: bool = False
    other: bool = False  # a number, a list of texts, ...
    objects: bool = False  # messages must be LangChain's objects, not mappings
    plain: bool = False  # a text is preferred to messages, where possible
    # The chain stores earlier messages itself, so it receives only the last message.
    last: bool = False
    lenient: bool = False  # fields that it calls required may be missing
    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether the accepted values are known at all."""
        return self.text or self.messages or self.mapping or self.other

    @property
    def names(self) -> dict[str, Shape]:
        """The members of the mapping. The required ones come first."""
        return {**self.required, **self.optional}


@dataclass(frozen=True, slots=True)
class Unclear:
    """No rule decides the form.

    `names`: the names of the mapping that the chain accepts. `is_known`: the chain surely accepts no
    messages.
    """

    names: tuple[str, ...] = ()
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """The form that a question gets.

    `key` is the name of the question in a mapping. If it is empty, the question is the whole input.
    """

    kind: Kind
    key: str = ""
    earlier: str = ""  # the name for the messages before the question
    last: bool = False  # only the last message is passed on
    objects: bool = False

    def of(self, messages: Sequence[Message], make: Make = list) -> Any:
        """Return the conversation in this form.

        `make` turns a list of messages into the value that the chain receives.

        Raises ValueError if a text is needed, and there is no user message.
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
    """Return the text of a message's content: the content itself, or the texts of its parts joined."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))


def _last(messages: Sequence[Message]) -> int:
    """Return the index of the last user message. Raises ValueError if there is no user message."""
    for place in reversed(range(len(messages))):
        if messages[place].get("role") == "user":
            return place
    raise ValueError("the messages hold no question: none is a user's")


def form_of(shape: Shape) -> Form | Unclear:
    """Apply the rule, for a chain that receives only the question."""
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
    """Return the values that a JSON Schema accepts."""
    root = schema if root is None else root
    found = list(_alternatives(schema, root))
    kinds = {kind for one in found for kind in _types(one)}
    lists = [one for one in found if "array" in _types(one)]
    kept = [one for one in lists if _may_hold_messages(one.get("items", True), root)]
    mapping = next((one for one in found if "object" in _types(one)), None)
    if deep > 0 and mapping is not None and _is_message(mapping):
        mapping = None  # one message where a text could be
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
    """Yield the schemas that `$ref`, `anyOf`, `oneOf` and `allOf` lead to.

    A schema that accepts anything yields nothing.
    """
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
    """Return the types that a schema names, or that its keywords imply."""
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
    """Whether the schema describes one of LangChain's messages, as pydantic writes it."""
    return str(schema.get("title", "")).endswith(("Message", "MessageChunk")) and "type" in schema.get(
        "properties", {}
    )
