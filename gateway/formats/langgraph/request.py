"""Parses and checks the body of a LangGraph run, and makes the state at the run's start.

A thread's state is stored with its newest run. Messages have LangChain's form, or the form
`{role, content}`. They are added as LangGraph's `add_messages` does: a message whose id is already in the
state replaces the message with this id.
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
_PASSED_OVER = ("function",)  # ignored: an old kind of answer that names no tool call
_REMOVE, _REMOVE_ALL = "remove", "__remove_all__"
_MOST_CHARACTERS = 200  # of a message's id
_COMMANDS = ("resume", "update", "goto")
_INTERRUPT = re.compile(r"[0-9a-f]{32}")  # the form of the ids of LangGraph's questions
NOTHING: Any = object()
# Fields that this gateway does not support. They would change the run, so they are refused unless empty.
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
    """LangGraph's command: the answer to a graph's questions, and other changes (`update`, `goto`).

    `resume` is one value if there is one question, or an object with values by the questions' ids. It is
    NOTHING if the command has no answer.
    """

    resume: Any = field(repr=False)
    update: Mapping[str, Any] | None = field(repr=False)
    goto: Sequence[Any]

    def answers(self, questions: Sequence[Mapping[str, Any]]) -> Resume:
        """Return the answer to these questions.

        Raises UnansweredInterrupts if there is one value but several questions.
        """
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
    """A request for a run. `input` is the client's input, without the thread's earlier messages."""

    chain: str
    input: Any = field(repr=False)
    params: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any] | None
    modes: tuple[str, ...]
    strategy: str
    key: str
    digest: str  # of key and body: a repeated POST has the same digest, and returns the same run
    checkpoint: str  # the run or checkpoint from which this run continues, if the client named one
    size: int  # about the size of the body in bytes
    command: Command | None = None  # the input of a run that continues a waiting run
    webhook: Webhook | None = None  # the webhook to call when the run ends
    subgraphs: bool = False  # the client also wants the frames of subgraphs
    durability: str = "async"


def parse_run(value: Any, key: str = "", bounds: Bounds = DEFAULT) -> Asked:
    """Parse the body of a POST that starts a run; `key` is its Idempotency-Key.

    The messages are counted here, so a body with too many messages is refused before the store is read.
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
    """Return the body's command, or None if the body has no command. Raises Invalid.

    A body without a command and without an input continues a run that stopped at a breakpoint.
    """
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
    """Convert an update that is a list of pairs (name, value) to an object. Raises Invalid."""
    if not all(isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in update):
        raise Invalid("command.update", "must be an object, or pairs of a name and a value")
    return dict(update)


def _steps(limit: Any) -> dict[str, Any]:
    """Return `config.recursion_limit` as part of a run's params. Raises Invalid."""
    if limit is None:
        return {}
    if type(limit) is not int or limit < 1:
        raise Invalid("config.recursion_limit", "must be a whole number, at least 1")
    return {"recursion_limit": limit}


def parse_modes(given: Any) -> tuple[str, ...]:
    """Return the modes of `stream_mode`, a string or a list. Raises Invalid for an unsupported mode."""
    modes = [given] if isinstance(given, str) else given
    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        raise Invalid("stream_mode", "must be a string or a list of strings")
    if any(mode not in EVENTS_OF_MODE for mode in modes):
        raise Invalid("stream_mode", f"must be of {', '.join(EVENTS_OF_MODE)}")
    return tuple(dict.fromkeys(modes))


def begin_state(asked: Asked, before: Sequence[Mapping[str, Any]], bounds: Bounds) -> dict[str, Any]:
    """Return the state at the run's start: the client's input, with its messages appended to `before`.

    The running time is proportional to the number of messages. Raises Invalid.
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
    """Return the stream to start for this run. Raises Invalid."""
    messages = with_answers(map(_plain, state["messages"]))
    body: dict[str, Any] = {"chain": asked.chain, "params": dict(asked.params)}
    body |= {} if asked.metadata is None else {"metadata": asked.metadata}
    body |= _given(asked, state, messages)
    try:
        if "input" in body:
            conversation("messages", messages, bounds)  # `parse_start` does not check messages in an input
        return replace(parse_start(body, chains, bounds), webhook=asked.webhook)
    except Invalid as error:
        names = {"chain": "assistant_id", "params": "config.configurable", "metadata": "metadata"}
        field_name, rule = error.extensions["field"], error.extensions["rule"]
        raise Invalid(names.get(field_name, f"input.{field_name}"), rule) from None


def turn_of(
    asked: Asked, state: Mapping[str, Any], before: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return what the run adds to the messages in `before`, as a stream's input; None if it adds nothing."""
    known = {one["id"]: one for one in before}
    new = [one for one in state["messages"] if known.get(one["id"]) != one]
    given = _given(asked, state, list(map(_plain, new)))
    return None if given == {"input": {}} else given


def _given(asked: Asked, state: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state with these messages, as the field `input` or `messages` of a stream's start."""
    others = {name: value for name, value in state.items() if name != "messages"}
    if not isinstance(asked.input, dict) and asked.input is not None:
        return {"input": asked.input}
    if others or not messages:
        return {"input": others | ({"messages": messages} if messages else {})}
    return {"messages": messages}


def _count(given: Any, bounds: Bounds) -> None:
    """Check the number of messages. Removals and tools' answers count as well. Raises Invalid."""
    messages = given.get("messages") if isinstance(given, dict) else None
    if isinstance(messages, list) and len(messages) > bounds.messages:
        raise Invalid("input.messages", f"must be at most {bounds.messages}")


def _add(
    messages: dict[str, dict[str, Any]], where: str, given: Any, known: set[str], bounds: Bounds
) -> None:
    """Check one message of the input, and apply it to `messages`: add a message, replace one, or remove one.

    `messages` has the messages by id, in order. `known` has the ids of all tool calls so far. Raises Invalid.
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
    """Check a model's tool calls, and return them in LangChain's form `{name, args, id}`.

    A call may have LangChain's form, or OpenAI's form with a `function`. Raises Invalid.
    """
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
    """Return the fields of a tool's message other than the content. Raises Invalid."""
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
    """Convert a message from LangChain's form to the form that this gateway's chains accept."""
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
    """Return a value that is equal for equal objects, whatever the order of their members."""
    if isinstance(value, dict):
        return [[name, _sorted(value[name])] for name in sorted(value)]
    return [_sorted(item) for item in value] if isinstance(value, list) else value
