"""The body of a LangGraph run, checked against every rule, and the state that the run begins with.

A thread's state is kept by its newest run. Messages come as LangChain writes them, or as `{role, content}`,
and are added as LangGraph's `add_messages` does: one whose id is known takes the known one's place.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.formats.base.projection import whole
from gateway.formats.langgraph.projection import EVENTS_OF_MODE, message
from gateway.protocol import sse
from gateway.protocol.errors import Invalid, UnansweredInterrupts
from gateway.streams.images import check_parts
from gateway.streams.messages import (
    MOST_ID,
    MOST_NAME,
    STATUSES,
    UNASKED,
    call,
    check_arguments,
    check_word,
    conversation,
    with_answers,
)
from gateway.streams.resume import Resume, goto_of
from gateway.streams.start import DEFAULT, STRATEGIES, Bounds, Start, parse_start
from gateway.streams.strict_json import shown
from gateway.webhooks.asked import Webhook, of_url

_KINDS = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
}
_ASKING = ("ai", "assistant")
_TYPES = {"user": "human", "assistant": "ai", "system": "system", "developer": "system", "tool": "tool"}
_TOOL = "tool"
_PASSED_OVER = ("function",)  # an answer that names no call: what came before tools
_REMOVE, _REMOVE_ALL = "remove", "__remove_all__"
_MOST_CHARACTERS = 200  # of an id
_COMMANDS = ("resume", "update", "goto")
_INTERRUPT = re.compile(r"[0-9a-f]{32}")  # the form of the ids of LangGraph's questions
NOTHING: Any = object()
# What changes what is run, and is not to be had here, unless it is empty.
_NOT_HERE = (
    "interrupt_before",
    "interrupt_after",
    "after_seconds",
    "checkpoint_id",
    "feedback_keys",
)
_DURABILITIES = ("async", "sync", "exit")


@dataclass(frozen=True, slots=True)
class Command:
    """LangGraph's command: the answer to what a graph has asked, and what else is changed.

    `resume` is a value for the only question, or values by the questions' ids; NOTHING where there is none.
    """

    resume: Any = field(repr=False)
    update: Mapping[str, Any] | None = field(repr=False)
    goto: Sequence[Any]

    def answers(self, questions: Sequence[Mapping[str, Any]]) -> Resume:
        """The answer to these questions. Raises UnansweredInterrupts for one value and several questions."""
        ids = [one["id"] for one in questions]
        if self.resume is NOTHING:
            return Resume({}, update=self.update, goto=self.goto)
        if isinstance(self.resume, dict) and self.resume and all(map(_INTERRUPT.fullmatch, self.resume)):
            return Resume(self.resume, update=self.update, goto=self.goto)
        if len(ids) > 1:
            raise UnansweredInterrupts(f"answer each of these by its id: {', '.join(ids)}")
        return Resume(dict.fromkeys(ids, self.resume), update=self.update, goto=self.goto)


@dataclass(frozen=True, slots=True)
class Asked:
    """A run as it was asked for. `input` is what the client sent of it."""

    chain: str
    input: Any = field(repr=False)
    params: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any] | None
    modes: tuple[str, ...]
    strategy: str
    key: str
    digest: str  # of key and body: the same POST again is the same run
    checkpoint: str  # the run after which this one goes on, where that was named
    size: int  # bytes of the body, about
    command: Command | None = None  # what a run that waits goes on with
    webhook: Webhook | None = None  # whom to tell of the run's end
    subgraphs: bool = False  # their frames are asked for, too
    durability: str = "async"


def parse_run(value: Any, key: str = "", bounds: Bounds = DEFAULT) -> Asked:
    """Read the body of a POST that starts a run; `key` is its Idempotency-Key.

    The messages are counted here: nothing is read from the store for a body that has too many of them.
    Raises Invalid, which names the field and the rule.
    """
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    _count(value.get("input"), bounds)
    for name in _NOT_HERE:
        if value.get(name):
            raise Invalid(name, "is not to be had here")
    chain, config, metadata = value.get("assistant_id"), value.get("config"), value.get("metadata")
    strategy = value.get("multitask_strategy") or "reject"
    if not isinstance(chain, str):
        raise Invalid("assistant_id", "must be the name of a chain of this gateway")
    if strategy not in STRATEGIES:
        raise Invalid("multitask_strategy", f"must be one of {', '.join(STRATEGIES)}")
    configurable = _object("config", config).get("configurable")
    params = _object("config.configurable", configurable) | _object("context", value.get("context"))
    params |= _steps(_object("config", config).get("recursion_limit"))
    spelled = sse.dumps([key, _sorted(value)])
    digest = hashlib.sha256(spelled).hexdigest()
    checkpoint = _object("checkpoint", value.get("checkpoint")).get("checkpoint_id") or ""
    if not isinstance(checkpoint, str):
        raise Invalid("checkpoint.checkpoint_id", "must be a string")
    modes = parse_modes(value.get("stream_mode") or "values")
    told = _object("metadata", metadata) or None
    given = whole(value.get("input"))
    command = _command(value)
    size = len(spelled)
    durability = value.get("durability") or ("exit" if value.get("checkpoint_during") is False else "async")
    if durability not in _DURABILITIES:
        raise Invalid("durability", f"must be one of {', '.join(_DURABILITIES)}")
    if value.get("on_completion") not in (None, "keep"):
        raise Invalid("on_completion", "must be keep: a run is kept as long as any stream")
    url = value.get("webhook")
    return Asked(
        *(chain, given, params, told, modes, strategy, key, digest, checkpoint, size, command),
        webhook=of_url(url, bounds.webhooks) if url is not None else None,
        subgraphs=value.get("stream_subgraphs") is True,
        durability=durability,
    )


def _command(value: Mapping[str, Any]) -> Command | None:
    """The body's command; without input it goes on from a breakpoint. Raises Invalid."""
    given = _object("command", value.get("command"))
    for name in given:
        if name not in _COMMANDS:
            raise Invalid(f"command.{shown(name)}", "is not to be had here")
    resume, update, goto = (given.get(name) for name in _COMMANDS)
    if resume is None and not update and not goto:
        return None
    if value.get("input") is not None:
        raise Invalid("command", "may not come with an input")
    if isinstance(update, list):
        update = _pairs(update)
    if update is not None and not isinstance(update, dict):
        raise Invalid("command.update", "must be an object")
    return Command(NOTHING if resume is None else resume, update, goto_of("command.goto", goto))


def _pairs(update: list[Any]) -> dict[str, Any]:
    """An update that is written as names and values. Raises Invalid."""
    if not all(isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in update):
        raise Invalid("command.update", "must be an object, or pairs of a name and a value")
    return dict(update)


def _steps(limit: Any) -> dict[str, Any]:
    """`config.recursion_limit` as a run's params have it. Raises Invalid."""
    if limit is None:
        return {}
    if type(limit) is not int or limit < 1:
        raise Invalid("config.recursion_limit", "must be a whole number, at least 1")
    return {"recursion_limit": limit}


def parse_modes(given: Any) -> tuple[str, ...]:
    """The modes of `stream_mode`, one or several. Raises Invalid for one that has no frames here."""
    modes = [given] if isinstance(given, str) else given
    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        raise Invalid("stream_mode", "must be a string or a list of strings")
    if any(mode not in EVENTS_OF_MODE for mode in modes):
        raise Invalid("stream_mode", f"must be of {', '.join(EVENTS_OF_MODE)}")
    return tuple(dict.fromkeys(modes))


def begin_state(asked: Asked, before: Sequence[Mapping[str, Any]], bounds: Bounds) -> dict[str, Any]:
    """The state that the run begins with: the client's input, its messages after those of before.

    The time that this takes grows as the number of messages does. Raises Invalid.
    """
    if not isinstance(asked.input, dict):
        return {"messages": list(before)} | ({} if asked.input is None else {"input": asked.input})
    _count(asked.input, bounds)
    messages = {one["id"]: dict(one) for one in before}
    given = asked.input.get("messages", [])
    known = {call["id"] for one in before for call in one.get("tool_calls") or ()}
    for index, item in enumerate(given if isinstance(given, list) else [given]):
        _add(messages, f"input.messages[{index}]", item, known, bounds)
    if len(messages) > bounds.messages:
        raise Invalid("input.messages", f"must be at most {bounds.messages}, with those of before")
    state = {**asked.input, "messages": list(messages.values())}
    if len(sse.dumps(state)) > bounds.bytes:
        raise Invalid("input", f"must be at most {bounds.bytes} bytes, with the messages of before")
    return state


def start_of(asked: Asked, state: Mapping[str, Any], chains: Mapping[str, Any], bounds: Bounds) -> Start:
    """What is to be run. Raises Invalid."""
    messages = with_answers(map(_plain, state["messages"]))
    body: dict[str, Any] = {"chain": asked.chain, "params": dict(asked.params)}
    body |= {} if asked.metadata is None else {"metadata": asked.metadata}
    body |= _given(asked, state, messages)
    try:
        if "input" in body:
            conversation("messages", messages, bounds)  # within an input nobody else looks at them
        return replace(parse_start(body, chains, bounds), webhook=asked.webhook)
    except Invalid as error:
        names = {"chain": "assistant_id", "params": "config.configurable", "metadata": "metadata"}
        field_name, rule = error.extensions["field"], error.extensions["rule"]
        raise Invalid(names.get(field_name, f"input.{field_name}"), rule) from None


def turn_of(
    asked: Asked, state: Mapping[str, Any], before: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """What the run adds to what was said before, as a stream's input; None where it adds nothing."""
    known = {one["id"]: one for one in before}
    new = [one for one in state["messages"] if known.get(one["id"]) != one]
    given = _given(asked, state, list(map(_plain, new)))
    return None if given == {"input": {}} else given


def _given(asked: Asked, state: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state with these messages, as the field of a stream that it is."""
    others = {name: value for name, value in state.items() if name != "messages"}
    if not isinstance(asked.input, dict) and asked.input is not None:
        return {"input": asked.input}
    if others or not messages:
        return {"input": others | ({"messages": messages} if messages else {})}
    return {"messages": messages}


def _count(given: Any, bounds: Bounds) -> None:
    """Raises Invalid for more messages than are allowed; removals and tools' answers count, too."""
    messages = given.get("messages") if isinstance(given, dict) else None
    if isinstance(messages, list) and len(messages) > bounds.messages:
        raise Invalid("input.messages", f"must be at most {bounds.messages}")


def _add(
    messages: dict[str, dict[str, Any]], where: str, given: Any, known: set[str], bounds: Bounds
) -> None:
    """One more message, or another in the place of one, or one less.

    `messages`: by id, in order. `known`: the ids of all tool calls so far.
    """
    if isinstance(given, str):
        given = {"type": "human", "content": given}
    if isinstance(given, list) and len(given) == 2:
        given = {"type": given[0], "content": given[1]}
    if not isinstance(given, dict):
        raise Invalid(where, "must be a message: an object with type or role, and content")
    kind, message_id = given.get("type") or given.get("role"), given.get("id")
    if message_id is not None and not (
        isinstance(message_id, str) and 0 < len(message_id) <= _MOST_CHARACTERS
    ):
        raise Invalid(f"{where}.id", f"must be a string of 1 to {_MOST_CHARACTERS} characters")
    if kind == _REMOVE:
        if message_id == _REMOVE_ALL:
            messages.clear()
        elif message_id is not None:
            messages.pop(message_id, None)
        return
    if kind in _PASSED_OVER:
        return
    if not isinstance(kind, str) or (kind not in _KINDS and kind != _TOOL):
        raise Invalid(f"{where}.type", "must be human, ai, system, or a tool's")
    calls = _calls(f"{where}.tool_calls", given.get("tool_calls") or [], bounds) if kind in _ASKING else []
    content = given.get("content")
    if content is None and calls:
        content = ""
    parts = isinstance(content, list) and all(isinstance(part, str | dict) for part in content)
    if not isinstance(content, str) and not parts:
        raise Invalid(f"{where}.content", "must be a string, or a list of content parts")
    check_parts(f"{where}.content", content)
    told = message(_TYPES[_KINDS.get(kind, _TOOL)], content, message_id or str(uuid.uuid4()))
    if calls:
        told["tool_calls"] = calls
        known.update(call["id"] for call in calls)
    if kind == _TOOL:
        told |= _answer(where, given, known)
    if kind == "developer":
        told["role"] = kind
    messages[told["id"]] = told  # a known id keeps its place


def _calls(where: str, given: Any, bounds: Bounds) -> list[dict[str, Any]]:
    """A model's calls as LangChain writes them: `{name, args, id}`, or OpenAI's, with a `function`."""
    if not isinstance(given, list):
        raise Invalid(where, "must be a list")
    calls = []
    for index, one in enumerate(given):
        at = f"{where}[{index}]"
        if not isinstance(one, dict):
            raise Invalid(at, "must be an object with name, args and id")
        name, arguments = one.get("name"), one.get("args")
        if isinstance(function := one.get("function"), dict):
            name = function.get("name")
            check_arguments(f"{at}.function.arguments", function.get("arguments"), bounds)
            arguments = json.loads(function["arguments"])
        if not isinstance(arguments, dict):
            raise Invalid(f"{at}.args", "must be an object")
        check_word(f"{at}.id", one.get("id"), MOST_ID)
        check_word(f"{at}.name", name, MOST_NAME)
        calls.append({"name": name, "args": arguments, "id": one["id"], "type": "tool_call"})
    return calls


def _answer(where: str, given: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """What a tool's message has beside its content."""
    call_id, name, status = given.get("tool_call_id"), given.get("name"), given.get("status") or STATUSES[0]
    check_word(f"{where}.tool_call_id", call_id, MOST_ID)
    if call_id not in known:
        raise Invalid(f"{where}.tool_call_id", UNASKED)
    if name is not None:
        check_word(f"{where}.name", name, MOST_NAME)
    if status not in STATUSES:
        raise Invalid(f"{where}.status", f"must be one of {', '.join(STATUSES)}")
    return {"tool_call_id": call_id, "name": name, "status": status}


def _plain(one: Mapping[str, Any]) -> dict[str, Any]:
    """A message as our own chains take it."""
    content = one["content"]
    if isinstance(content, list):
        content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    if one["type"] == _TOOL:
        told = {"role": _TOOL, "content": content or "", "tool_call_id": one["tool_call_id"]}
        return told | {name: one[name] for name in ("name", "status") if one.get(name)}
    told = {"role": one.get("role") or _KINDS[one["type"]], "content": content}
    if calls := one.get("tool_calls"):
        told["content"] = content or ""
        told["tool_calls"] = [
            call(each["id"], each["name"], sse.dumps(each["args"]).decode()) for each in calls
        ]
    return told


def _object(where: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(where, "must be an object")
    return value


def _sorted(value: Any) -> Any:
    """The same for the same object, however it is spelled."""
    if isinstance(value, dict):
        return [[name, _sorted(value[name])] for name in sorted(value)]
    return [_sorted(item) for item in value] if isinstance(value, list) else value
