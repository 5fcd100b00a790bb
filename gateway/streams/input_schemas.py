"""The JSON Schema (draft 2020-12) of each chain's input, and the check of an input against it.

Schemas are plain data that the hosts pass in: nothing here knows LangChain. A chain without a schema accepts
any JSON. An answer names the field and the rule, and never repeats what the client sent.

An input that breaks a rule in thousands of places is refused in bounded time. The steps of a check are
counted. `uniqueItems` takes time that grows linearly with the list. A text is matched against a `pattern` for
a bounded time, and the event loop goes on meanwhile.
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
# A step applies one keyword of a schema to one value: about 5 us. The largest conversation needs a third of
# these steps.
MOST_STEPS = 250_000
FEW_STEPS = 1000  # steps that a check may take on the event loop
# An error takes longer to make than a step, and is stored until the best error is known.
STEPS_OF_AN_ERROR = 10
# The size in bytes up to which an input may be checked on the event loop.
SMALL_BYTES = 512
PATTERN_SECONDS = 0.5  # seconds of processor time, for all patterns of one check
LARGE_NUMBER = 2**53  # from this number on, every float is a whole number
TOO_LONG = "takes longer to check than this gateway allows: send less, or simpler values"


class _TooLong(Exception):
    """A check has used up its steps or its time."""


class _Left(threading.local):
    """The steps and seconds that remain for the check in this thread."""

    steps = 0
    seconds = 0.0


_left = _Left()


class Inputs:
    """The inputs that the chains of one process accept, and the params that their callers may set.

    `allowed`, by chain: either a JSON Schema of all params that callers may set; or names that callers may
    set even though they name a credential or an endpoint. Raises ValueError for an invalid schema.
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
        # The form that a question gets, by chain.
        self._forms: dict[str, Form] = {}
        # Names of the chains whose schema has a `pattern`.
        self._patterned: set[str] = set()
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
        except (SchemaError, TypeError, ValueError):  # `{"text": str}`, for example, is not JSON
            is_are = "is" if what == "input" else "are"
            raise ValueError(f"the {what} of chain {chain} {is_are} no JSON Schema") from None
        if '"pattern' in written:
            self._patterned.add(chain)
        return _Bounded(schema)

    def schema(self, chain: str) -> Schema | None:
        """Return the schema of a chain's input, or None if the chain has no schema."""
        return self._schemas.get(chain)

    def params(self, chain: str) -> Schema | None:
        """Return the JSON Schema of the params that callers may set, if the chain declares them."""
        return self._params.get(chain)

    def is_structured(self, chain: str) -> bool:
        """Whether the chain declares that it obeys the requested form of the answer."""
        return RESPONSE_FORMAT in self._allowed.get(chain, ())

    async def hold(self, start: Start, owner: str = "") -> None:
        """Do what `check` does. A check that takes more than a few milliseconds runs outside the event loop.

        `owner`: the caller in whose turn the check runs.
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
        """Raise Invalid, which names the field and the rule, if the input or the params break a rule."""
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
            # The client sent a text. The message that was made from it is unknown to the client.
            if start.sent == "user":
                raise Invalid("user", rule)
            is_changed = form is not None and form != Form(Kind.MESSAGES)
            within = [] if is_changed else [*error.absolute_path, *where]
            raise Invalid(_path(field, within), rule)


async def hold_answer(schema: Schema, value: Any, field: str, owner: str = "") -> None:
    """Check that an answer keeps to its question's schema, which a graph has made.

    The check runs outside the event loop. An invalid schema demands nothing. Raises Invalid.
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
    """Return the error to report, or None if the value is valid."""
    try:
        error: ValidationError | None = best_match(validator.iter_errors(value))
    # The schema refers to itself, and the value is as deep as GATEWAY_MAX_DEPTH allows.
    except RecursionError:
        raise _TooLong from None
    return error


def _referred(schema: Any) -> Iterator[Any]:
    """Yield the schemas that `$ref` names within this schema.

    Such a schema may be under a keyword that the metaschema does not check. A reference that leads nowhere is
    ignored here.
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
    """Return a keyword's check that counts each use as a step."""

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
    """Do what `re.search` does, but for a bounded time, and without blocking the interpreter."""
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
    # A whole number that is too large for a float is divided by a fraction.
    except OverflowError:
        if Fraction(instance) % Fraction(factor):
            yield ValidationError("is no multiple")


def _unique_items(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if wanted and validator.is_type(instance, "array"):
        keys = {_key(item) for item in instance}
        if len(keys) < len(instance):
            yield ValidationError("has an item twice")


def _key(value: Any) -> Any:
    """Return a key that is equal for equal JSON values only: 1 equals 1.0, and true is not a number.

    Python gives whole numbers whose difference is a multiple of 2**61 - 1 the same hash, so a set of such
    numbers takes quadratic time. The key of a large number is its text, whose hash nobody can predict.
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
    """Return the place within the error's own path, and the rule in words or as the schema states it."""
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
