"""A run as AG-UI's clients ask for it: RunAgentInput, checked against every rule. No I/O.

Fields that this gateway does not know are passed over, as the protocol wants it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.formats.agui.messages import conversation_of
from gateway.protocol.errors import Invalid
from gateway.streams.input_schemas import Inputs
from gateway.streams.messages import MOST_ID, MOST_NAME, check_word
from gateway.streams.resume import MOST_RESPONSES
from gateway.streams.start import Bounds, Start, check_text, parse_start
from gateway.streams.strict_json import shown

_STATUSES = ("resolved", "cancelled")
_MESSAGES = "messages"
_SPELLED = {
    "thread_id": "threadId",
    "run_id": "runId",
    "parent_run_id": "parentRunId",
    "forwarded_props": "forwardedProps",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to one interrupt. `at` is the field of the request that it is in."""

    at: str
    interrupt: str
    is_cancelled: bool
    payload: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Run:
    """Which run is asked for: a repeated request is known by this alone."""

    chain: str
    thread: str
    name: str

    @property
    def key(self) -> str:
        """The same for the same run."""
        told = f"agui\0{self.chain}\0{self.thread}\0{self.name}".encode(errors="surrogatepass")
        return hashlib.sha256(told).hexdigest()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for. `kept` is what the projection needs of it."""

    kept: Mapping[str, Any] = field(repr=False)
    start: Start | None = field(repr=False)  # None: another run goes on
    resume: Sequence[Reply] = field(default=(), repr=False)


def spelled(value: Any) -> Any:
    """A body whose fields are spelled as in the protocol: some Python clients send `thread_id` and so on.

    Raises Invalid.
    """
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    return {_SPELLED.get(name, name): item for name, item in value.items()}


def run_of(value: Mapping[str, Any], chain: str) -> Run:
    """The run that a body names. Raises Invalid."""
    for name in ("threadId", "runId"):
        check_word(name, value.get(name), MOST_ID)
    return Run(chain, value["threadId"], value["runId"])


def asked_of(
    value: Mapping[str, Any], run: Run, chains: Mapping[str, Any], inputs: Inputs, bounds: Bounds
) -> Asked:
    """All that a body asks for, of a chain that is known. Raises Invalid."""
    parent = value.get("parentRunId")
    if parent is not None:
        check_word("parentRunId", parent, MOST_ID)
    said = conversation_of(value.get(_MESSAGES), bounds)
    state = value.get("state")
    kept = {"thread": run.thread, "run": run.name, "messages": said.shown}
    kept |= {"parent": parent} if parent is not None else {}
    kept |= {"state": state} if state not in (None, {}) else {}
    if entries := _entries(value.get("resume")):
        return Asked(kept, None, entries)
    body: dict[str, Any] = {
        "chain": run.chain,
        "params": _params(value, run.chain, inputs),
        "metadata": {"threadId": run.thread, "runId": run.name},
        _MESSAGES: said.asked,
    }
    if own := _own_state(state, inputs.schema(run.chain)):
        body["input"] = {**own, _MESSAGES: body.pop(_MESSAGES)}
    if not said.asked:
        raise Invalid(_MESSAGES, "must hold a message that a chain can be asked")
    return Asked(kept, replace(parse_start(body, chains, bounds), once=run.key))


def _own_state(state: Any, schema: Any) -> dict[str, Any]:
    """What of the client's state the chain's input has a place for."""
    known = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(state, dict) or not isinstance(known, Mapping) or _MESSAGES not in known:
        return {}
    return {name: state[name] for name in state if name in known and name != _MESSAGES}


def _params(value: Mapping[str, Any], chain: str, inputs: Inputs) -> dict[str, Any]:
    """What a chain may heed of the request; of a chain that declares its params, those that it has."""
    told = {
        "tools": _tools(value.get("tools")),
        "context": _context(value.get("context")),
        "state": value.get("state"),
        "forwarded_props": value.get("forwardedProps"),
    }
    declared = inputs.params(chain)
    known = told if declared is None else declared.get("properties", {})
    return {name: one for name, one in told.items() if one not in (None, {}, [], "") and name in known}


def _tools(given: Any) -> list[dict[str, Any]]:
    """The client's tools, as `bind_tools` takes them."""
    tools = []
    for index, one in enumerate(_list("tools", given)):
        at = f"tools[{index}]"
        if not isinstance(one, dict):
            raise Invalid(at, "must be an object with name, description and parameters")
        check_word(f"{at}.name", one.get("name"), MOST_NAME)
        told = one.get("description", "")
        if not isinstance(told, str):
            raise Invalid(f"{at}.description", "must be a string")
        check_text(f"{at}.description", told)
        parameters = one.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise Invalid(f"{at}.parameters", "must be a JSON Schema")
        function = {"name": one["name"], "description": told, "parameters": parameters or _NONE}
        tools.append({"type": "function", "function": function})
    return tools


_NONE: Mapping[str, Any] = {"type": "object", "properties": {}}


def _context(given: Any) -> list[dict[str, str]]:
    told = []
    for index, one in enumerate(_list("context", given)):
        at = f"context[{index}]"
        words = [one.get(name) for name in ("description", "value")] if isinstance(one, dict) else [None]
        if not all(isinstance(word, str) for word in words):
            raise Invalid(at, "must be an object with description and value, which are strings")
        for name, word in zip(("description", "value"), words, strict=True):
            check_text(f"{at}.{name}", str(word))
        told.append({"description": str(words[0]), "value": str(words[1])})
    return told


def _entries(given: Any) -> list[Reply]:
    found: list[Reply] = []
    for index, one in enumerate(_list("resume", given)):
        at = f"resume[{index}]"
        if not isinstance(one, dict):
            raise Invalid(at, "must be an object with interruptId, status and payload")
        check_word(f"{at}.interruptId", one.get("interruptId"), MOST_ID)
        if one.get("status") not in _STATUSES:
            raise Invalid(f"{at}.status", f"must be one of {', '.join(_STATUSES)}")
        if any(known.interrupt == one["interruptId"] for known in found):
            raise Invalid(f"{at}.interruptId", f"{shown(one['interruptId'])} is answered twice")
        found.append(Reply(at, one["interruptId"], one["status"] == "cancelled", one.get("payload")))
    if len(found) > MOST_RESPONSES:
        raise Invalid("resume", f"must be at most {MOST_RESPONSES} answers")
    return found


def _list(name: str, given: Any) -> list[Any]:
    if given is not None and not isinstance(given, list):
        raise Invalid(name, "must be a list")
    return given or []
