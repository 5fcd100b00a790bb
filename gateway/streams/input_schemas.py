"""What each chain takes, as JSON Schema (draft 2020-12), and whether an input keeps to it.

Schemas are plain data that the hosts hand in: nothing here knows LangChain. A chain without one takes any
JSON. An answer names the field and the rule, and never repeats what the client has sent.

An input that breaks a rule in thousands of places is found out in bounded time: the steps of a check are
counted, `uniqueItems` takes a time that grows as the list does, and a text is held against a `pattern` for a
bounded time, in which the event loop goes on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import regex  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from gateway.protocol import sse
from gateway.protocol.errors import Invalid
from gateway.runtime.off_loop import LARGE, aside
from gateway.streams import params
from gateway.streams.forms import Form, Kind, form_of, shape_of
from gateway.streams.params import RESPONSE_FORMAT
from gateway.streams.start import Start, shown

Schema = Mapping[str, Any]
Check = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]
LONGEST_RULE = 200
# A step is one word of a schema held against one value: some 5 us. The largest conversation takes a third.
MOST_STEPS = 250_000
FEW_STEPS = 1000  # that a check may take on the event loop
STEPS_OF_AN_ERROR = 10  # it takes longer to make, and is kept until the best is known
SMALL_BYTES = 512  # of an input that may be checked on the event loop
PATTERN_SECONDS = 0.5  # of processor time, for all patterns of one check
LARGE_NUMBER = 2**53  # from there on every float is a whole number
TOO_LONG = "takes longer to check than this gateway allows: send less, or simpler values"


class _TooLong(Exception):
    """A check has used up what it may use."""


class _Left(threading.local):
    """What the check that runs in this thread may still use."""

    steps = 0
    seconds = 0.0


_left = _Left()


class Inputs:
    """What one process's chains take: schemas of their inputs, and the params that their callers may set.

    `allowed`, by chain: a JSON Schema of all that they may set; or names, any of which may be set though it
    names a credential or an endpoint. Raises ValueError for a schema that is none.
    """

    def __init__(
        self,
        schemas: Mapping[str, Schema | None],
        allowed: Mapping[str, Collection[str] | Schema] | None = None,
    ) -> None:
        self._schemas = schemas
        self._allowed: dict[str, Collection[str]] = {}
        self._params: dict[str, Schema] = {}
        self._validators: dict[str, Any] = {}
        self._params_validators: dict[str, Any] = {}
        self._forms: dict[str, Form] = {}  # what a question becomes
        self._patterned: set[str] = set()  # names of chains
        for name, schema in schemas.items():
            if schema is not None:
                self._validators[name] = self._validator(name, "input", schema)
                if isinstance(form := form_of(shape_of(schema)), Form):
                    self._forms[name] = form
        for name, known in (allowed or {}).items():
            self._allowed[name] = known
            if isinstance(known, Mapping):
                self._allowed[name] = known.get("properties", {})
                self._params[name] = known
                self._params_validators[name] = self._validator(name, "params", known)

    def _validator(self, chain: str, what: str, schema: Schema) -> Any:
        try:
            written = json.dumps(schema, allow_nan=False)
            for one in (schema, *_referred(schema)):
                Draft202012Validator.check_schema(one)
        except (SchemaError, TypeError, ValueError):  # `{"text": str}`, for example, is no JSON
            is_are = "is" if what == "input" else "are"
            raise ValueError(f"the {what} of chain {chain} {is_are} no JSON Schema") from None
        if '"pattern' in written:
            self._patterned.add(chain)
        return _Bounded(schema)

    def schema(self, chain: str) -> Schema | None:
        """A chain's schema, if it has one."""
        return self._schemas.get(chain)

    def params(self, chain: str) -> Schema | None:
        """The JSON Schema of the params that callers may set, if the chain declares them."""
        return self._params.get(chain)

    def is_structured(self, chain: str) -> bool:
        """Whether the chain is declared to heed the form that its answer is asked for in."""
        return RESPONSE_FORMAT in self._allowed.get(chain, ())

    async def hold(self, start: Start, owner: str = "") -> None:
        """As `check`; what takes more than some milliseconds is done aside from the event loop.

        `owner`: the caller whose turn it takes.
        """
        checks = start.chain in self._validators or start.chain in self._params
        if not checks and not start.params:
            return
        given = len(sse.dumps([start.input, start.params]))
        if start.chain not in self._patterned and given <= SMALL_BYTES:
            with suppress(_TooLong):
                self._check(start, FEW_STEPS)
                return
        await aside(LARGE, lambda: self.check(start), owner)

    def check(self, start: Start) -> None:
        """Raises Invalid, which names the field and the rule."""
        try:
            self._check(start, MOST_STEPS)
        except _TooLong:
            raise Invalid(start.sent or next(iter(start.input)), TOO_LONG) from None

    def _check(self, start: Start, steps: int) -> None:
        _left.steps, _left.seconds = steps, PATTERN_SECONDS
        self._check_params(start)
        self._check_input(start)

    def _check_params(self, start: Start) -> None:
        if name := params.sensitive(start.params, self._allowed.get(start.chain, ())):
            raise Invalid(
                f"params.{shown(name)}", "names a credential or an endpoint, which callers may not set here"
            )
        if (validator := self._params_validators.get(start.chain)) is None:
            return
        given = {name: value for name, value in start.params.items() if name != params.STEPS}
        for name in given:
            if name not in self._allowed[start.chain]:
                raise Invalid(f"params.{shown(name)}", "is not a param of this chain")
        if (error := _worst(validator, given)) is not None:
            where, rule = _told(error)
            raise Invalid(_path("params", [*error.absolute_path, *where]), rule)

    def _check_input(self, start: Start) -> None:
        if (validator := self._validators.get(start.chain)) is None:
            return
        field, value = next(iter(start.input.items()))
        form = self._forms.get(start.chain) if field == "messages" else None
        if form is not None:
            try:
                value = form.of(value)
            except ValueError:
                raise Invalid("messages", "must hold a message of the role user") from None
        if (error := _worst(validator, value)) is not None:
            where, rule = _told(error)
            if start.sent == "user":  # a text: the message that it has become is not the client's
                raise Invalid("user", rule)
            is_changed = form is not None and form != Form(Kind.MESSAGES)
            within = [] if is_changed else [*error.absolute_path, *where]
            raise Invalid(_path(field, within), rule)


async def hold_answer(schema: Schema, value: Any, field: str, owner: str = "") -> None:
    """Whether an answer keeps to its question's schema, which a graph has made; aside from the event loop.

    A schema that is none asks for nothing. Raises Invalid.
    """

    def check() -> None:
        try:
            for one in (schema, *_referred(schema)):
                Draft202012Validator.check_schema(one)
        except SchemaError:
            return
        _left.steps, _left.seconds = MOST_STEPS, PATTERN_SECONDS
        try:
            error = _worst(_Bounded(schema), value)
        except _TooLong:
            raise Invalid(field, TOO_LONG) from None
        if error is not None:
            where, rule = _told(error)
            raise Invalid(_path(field, [*error.absolute_path, *where]), rule)

    await aside(LARGE, check, owner)


def _worst(validator: Any, value: Any) -> ValidationError | None:
    """The error to tell, if there is one."""
    try:
        error: ValidationError | None = best_match(validator.iter_errors(value))
    except RecursionError:  # a schema that names itself, and a value as deep as GATEWAY_MAX_DEPTH lets it be
        raise _TooLong from None
    return error


def _referred(schema: Any) -> Iterator[Any]:
    """What `$ref` names within this schema: it may stand under a word that the metaschema does not look into.

    A reference that leads nowhere is passed over here.
    """
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        waiting += one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ()
        where = one.get("$ref") if isinstance(one, Mapping) else None
        if isinstance(where, str) and where.startswith("#/"):
            found = schema
            for step in where[2:].split("/"):
                name = step.replace("~1", "/").replace("~0", "~")
                found = found.get(name) if isinstance(found, Mapping) else None
            if found is not None:
                yield found


def _counted(check: Check) -> Check:
    """A word of a schema, each use of which is a step."""

    def step(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _take(1)
        for error in check(validator, value, instance, schema) or ():
            _take(STEPS_OF_AN_ERROR)
            yield error

    return step


def _take(steps: int) -> None:
    _left.steps -= steps
    if _left.steps < 0:
        raise _TooLong


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _is_found(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if _is_found(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(_is_found(pattern, name) for pattern in patterns):
            continue
        if validator.is_type(allowed, "object"):
            yield from validator.descend(value, allowed, path=name)
        elif not allowed:
            yield ValidationError("has a name too many")
            return


def _is_found(pattern: str, text: str) -> bool:
    """As `re.search`, but for a bounded time, and without holding the interpreter."""
    began = time.thread_time()
    try:
        return regex.search(pattern, text, timeout=max(_left.seconds, 0.001), concurrent=True) is not None
    except TimeoutError:
        raise _TooLong from None
    finally:
        _left.seconds -= time.thread_time() - began


def _multiple_of(validator: Any, factor: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    try:
        yield from Draft202012Validator.VALIDATORS["multipleOf"](validator, factor, instance, schema)
    except OverflowError:  # a whole number beyond every float, held against a fraction
        if Fraction(instance) % Fraction(factor):
            yield ValidationError("is no multiple")


def _unique_items(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if wanted and validator.is_type(instance, "array"):
        keys = {_key(item) for item in instance}
        if len(keys) < len(instance):
            yield ValidationError("has an item twice")


def _key(value: Any) -> Any:
    """The same for equal values of JSON, and for no others: 1 is 1.0, and true is no number.

    Python gives whole numbers whose difference is a multiple of 2**61 - 1 the same hash, so a set of such
    numbers takes the square of its size. A large number is told by its text, whose hash nobody foresees.
    """
    match value:
        case bool() | None:
            return value, None
        case int() | float():
            return "number", value if abs(value) < LARGE_NUMBER else str(int(value))
        case list():
            return "list", tuple(map(_key, value))
        case dict():
            return "object", frozenset((name, _key(item)) for name, item in value.items())
    return value


_OWN = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
}
_Bounded = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {name: _counted(check) for name, check in {**Draft202012Validator.VALIDATORS, **_OWN}.items()},
)


def _told(error: ValidationError) -> tuple[list[str], str]:
    """Where, beyond the error's own path, and the rule in words, or as the schema has it."""
    rule, given, value = error.validator, _any(error.instance), _any(error.validator_value)
    if rule == "required":
        return [next(name for name in value if name not in given)], "must be given"
    if rule == "additionalProperties" and value is False:
        return [], "holds a field that this chain does not know"
    if rule == "type":
        return [], f"must be of type {_types(value)}"
    if rule in ("anyOf", "oneOf"):
        kinds = [_types(_any(one.validator_value)) for one in error.context or () if one.validator == "type"]
        if len(kinds) == len(value):
            return [], f"must be of type {' or '.join(kinds)}"
        return [], "has none of the forms that this chain takes"
    return [], f"must keep to {rule}: {json.dumps(value)}"[:LONGEST_RULE]


def _any(value: Any) -> Any:
    return value


def _types(value: Any) -> str:
    return value if isinstance(value, str) else " or ".join(value)


def _path(field: str, path: Sequence[str | int]) -> str:
    return field + "".join(f"[{step}]" if isinstance(step, int) else f".{step[:64]}" for step in path)
