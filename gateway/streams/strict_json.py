"""Strict JSON within bounds: no NaN, no infinity; nesting, lists and names are limited. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from gateway.protocol.errors import Invalid, Malformed
from gateway.settings import Settings
from gateway.webhooks.urls import NONE, Rules


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a body: bytes, nesting, members of a list or object, messages, characters of a name.

    `webhooks`: the rules for the address of a webhook in the body.
    """

    bytes: int
    depth: int
    items: int
    messages: int
    name: int
    webhooks: Rules = NONE

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Return the bounds that the settings define."""
        lengths = settings.max_items, settings.max_messages, settings.max_name
        return cls(settings.max_body, settings.max_depth, *lengths, Rules.of(settings))


DEFAULT = Bounds.of(Settings())


def parse_json(body: bytes, bounds: Bounds = DEFAULT) -> Any:
    """Parse strict JSON: no NaN, no infinity.

    Raises Malformed, or Invalid for a value that exceeds a bound.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise _too_deep(bounds) from None
    except ValueError:
        raise Malformed("the body is not JSON in UTF-8") from None
    _check_shape(value, bounds)
    return value


def check_text(where: str, text: str) -> None:
    """Raise Invalid for a text with half a surrogate pair.

    JSON can write it, but UTF-8 cannot, so it cannot be sent to a model.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(where, "must be whole Unicode characters: it has half a surrogate pair") from None


def shown(name: str) -> str:
    """Return a client's own field name in a short and printable form, for the answer."""
    return "".join(c if c.isprintable() else "?" for c in name[:64])


def _check_shape(value: Any, bounds: Bounds) -> None:
    """Check nesting, lists and names, level by level. Raises Invalid."""
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
