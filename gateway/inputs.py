"""What each chain takes, as JSON Schema (draft 2020-12), and whether an input keeps to it.

Schemas are plain data that the hosts hand in: nothing here knows LangChain. A chain without one takes any
JSON. An answer names the field and the rule, and never repeats what the client has sent.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from gateway import params
from gateway.body import Start, shown
from gateway.errors import Invalid

Schema = Mapping[str, Any]
LONGEST_RULE = 200


class Inputs:
    """What one process's chains take: schemas of their inputs, and params that name credentials or endpoints.

    `allowed`: by chain, such params that its callers may set; none where a chain is not named. Raises
    ValueError for a schema that is none.
    """

    def __init__(
        self, schemas: Mapping[str, Schema | None], allowed: Mapping[str, Collection[str]] | None = None
    ) -> None:
        self._schemas = schemas
        self._allowed = allowed or {}
        self._validators: dict[str, Draft202012Validator] = {}
        for name, schema in schemas.items():
            if schema is None:
                continue
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError:
                raise ValueError(f"the input of chain {name} is no JSON Schema") from None
            self._validators[name] = Draft202012Validator(schema)

    def schema(self, chain: str) -> Schema | None:
        """A chain's schema, if it has one."""
        return self._schemas.get(chain)

    def check(self, start: Start) -> None:
        """Raises Invalid, which names the field and the rule."""
        if name := params.sensitive(start.params, self._allowed.get(start.chain, ())):
            raise Invalid(
                f"params.{shown(name)}", "names a credential or an endpoint, which callers may not set here"
            )
        if (validator := self._validators.get(start.chain)) is None:
            return
        field, value = next(iter(start.input.items()))
        if (error := best_match(validator.iter_errors(value))) is not None:
            where, rule = _told(error)
            if start.sent == "user":  # a text: the message that it has become is not the client's
                raise Invalid("user", rule)
            raise Invalid(_path(field, [*error.absolute_path, *where]), rule)


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
