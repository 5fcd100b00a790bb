"""The input schemas of chains: checked before anything is stored, and listed by GET /chains on both hosts."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from pydantic import BaseModel, Field

from gateway.protocol.errors import Invalid
from gateway.streams.input_schemas import LONGEST_RULE, Inputs
from gateway.streams.start import Start, parse_start
from tests.hosts import Host
from workers.chains.asked import ASKED
from workers.chains.registry import _schema_of

pytest_plugins = ("tests.hosts",)
CANARY = "canary-4711"
TRIP = {
    "type": "object",
    "required": ["city", "days"],
    "additionalProperties": False,
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1},
        "stops": {"type": "array", "items": {"type": ["string", "null"]}},
        "kind": {"enum": ["x" * 300]},
    },
}


def told(schema: Any, given: Any, kind: str = "input") -> tuple[str, str] | None:
    try:
        Inputs({"c": schema}).check(Start("c", {kind: given}, {}))
    except Invalid as error:
        return error.extensions["field"], error.extensions["rule"]
    return None


@pytest.mark.parametrize(
    ("given", "field", "rule"),
    [
        ([], "input", "must be of type object"),
        ({"city": "Rome"}, "input.days", "must be given"),
        ({"city": 1, "days": 1}, "input.city", "must be of type string"),
        ({"city": CANARY * 9, "days": 1}, "input.city", "must keep to maxLength: 20"),
        ({"city": "Rome", "days": 0}, "input.days", "must keep to minimum: 1"),
        ({"city": "Rome", "days": True}, "input.days", "must be of type integer"),
        ({"city": "Rome", "days": 1, CANARY: 1}, "input", "holds a field that this chain does not know"),
        (
            {"city": "Rome", "days": 1, "stops": ["a", 2]},
            "input.stops[1]",
            "must be of type string or null",
        ),
    ],
)
def test_what_breaks_a_rule_is_told_by_field_and_rule(given: Any, field: str, rule: str) -> None:
    assert told(TRIP, given) == (field, rule)


def test_a_rule_is_told_within_bounds_and_the_input_is_not_repeated() -> None:
    answer = told(TRIP, {"city": "Rome", "days": 1, "kind": CANARY})
    assert answer is not None
    assert len(answer[1]) == LONGEST_RULE
    assert CANARY not in answer[1]


def test_what_keeps_to_the_rules_and_what_has_none_is_taken() -> None:
    assert told(TRIP, {"city": "Rome", "days": 1}) is None
    assert told(None, {"any": ["thing"]}) is None


def test_a_schema_that_is_none_is_told_at_the_start() -> None:
    with pytest.raises(ValueError, match="the input of chain c is no JSON Schema"):
        Inputs({"c": {"type": "no-such-type"}})


@pytest.mark.parametrize("wrong", [{"text": str}, {"maximum": float("nan")}, {"enum": [{1}]}])
def test_a_schema_that_is_no_json_is_told_at_the_start(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^the input of chain c is no JSON Schema$"):
        Inputs({"c": wrong})


def test_a_pattern_that_cannot_be_compiled_is_told_at_the_start_also_where_only_a_reference_leads() -> None:
    of_its_own = {"items": {"$ref": "#/forms/a~1b"}, "forms": {"a/b": {"type": "string", "pattern": "("}}}
    with pytest.raises(ValueError, match=r"^the input of chain c is no JSON Schema$"):
        Inputs({"c": of_its_own})


def test_what_only_looks_like_a_schema_is_no_reason_to_refuse_one() -> None:
    given = {
        "properties": {"$ref": {"enum": ["("]}},
        "default": {"pattern": "("},
        "$defs": {"l": {"$ref": "#"}},
    }
    assert told(given, {"$ref": "("}) is None


class Model(BaseModel):
    topic: str = Field(min_length=1)


class Typed(TypedDict):
    topic: str


@pytest.mark.parametrize("kind", [Model, Typed])
def test_a_type_will_do_for_a_schema(kind: Any) -> None:
    schema = _schema_of(kind)
    assert told(schema, {"topic": "rain"}) is None
    assert told(schema, {}) == ("input.topic", "must be given")
    assert told(schema, {"topic": 1}) == ("input.topic", "must be of type string")


def test_what_is_asked_may_be_a_text_or_a_conversation() -> None:
    message = {"role": "user", "content": "q"}
    fitting: list[Any] = ["q", [message], [message | {"content": [{"type": "text", "text": "q"}]}]]
    assert [told(ASKED, given) for given in fitting] == [None] * len(fitting)
    for given in ("", [], [{"role": "user"}], ["q"]):
        assert told(ASKED, given) is not None
    others: list[Any] = [{}, None, 1]
    for given in others:
        assert told(ASKED, given) == ("input", "must be of type string or array")
    assert told(ASKED, [message], "messages") is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": "x"}, "user"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"input": "x"}, "input"),
    ],
)
def test_the_field_that_is_named_is_one_that_was_sent(body: dict[str, Any], field: str) -> None:
    start = parse_start(body | {"chain": "c"}, {"c": ("c",)})
    with pytest.raises(Invalid) as caught:
        Inputs({"c": {"type": "object"}}).check(start)
    problem = caught.value.extensions
    assert (problem["field"], problem["rule"]) == (field, "must be of type object")


def test_a_text_that_has_become_a_message_is_named_without_the_messages_parts() -> None:
    schema = {"items": {"required": ["name"]}}
    with pytest.raises(Invalid) as caught:
        Inputs({"c": schema}).check(parse_start({"user": "x", "chain": "c"}, {"c": ("c",)}))
    assert caught.value.extensions["field"] == "user"


# The tests below run on both hosts.


@pytest.mark.asyncio(loop_scope="session")
async def test_chains_are_listed_with_stages_and_schemas(host: Host) -> None:
    answer = await host.http.get("/chains")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    chains = {chain["name"]: chain for chain in answer.json()["chains"]}
    assert list(chains) == sorted(chains)
    assert {"agent", "chat", "mirror", "rag", "report"} <= set(chains)
    assert chains["report"]["stages"] == ["outline", "sections", "critique", "final"]
    assert chains["chat"] == {"name": "chat", "stages": ["chat"], "input": ASKED}
    assert chains["mirror"]["input"] is None


@pytest.mark.asyncio(loop_scope="session")
async def test_an_input_that_does_not_fit_is_refused_before_anything_is_stored(host: Host) -> None:
    before = await host.stored()
    answer = await host.http.post("/stream", json={"chain": "report", "input": {"topic": CANARY}})
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["code"], problem["field"]) == ("invalid", "input")
    assert problem["rule"].startswith("must be of type")
    assert CANARY not in answer.text
    assert await host.stored() == before
