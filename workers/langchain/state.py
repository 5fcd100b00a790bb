"""Handle a graph's value at its end: what was already emitted, what is new, and what the next stage gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from workers.langchain.content import text_in, text_of
from workers.langchain.members import fits, tell_value
from workers.langchain.stage import Stage
from workers.langchain.values import plain

if TYPE_CHECKING:
    from workers.langchain.nodes import NodeTap

MESSAGES, STRUCTURED = "messages", "structured_response"  # names of LangGraph and LangChain
INTERRUPT = "__interrupt__"
_ASSISTANTS = ("ai", "assistant", "AIMessage")


def shown(graph: Any, values: Any) -> Any:
    """Return the part of a whole state that `ainvoke` returns: the keys of the graph's output schema."""
    names = graph.output_channels
    if isinstance(names, str):
        return values.get(names) if isinstance(values, Mapping) else values
    return {name: values[name] for name in values if name in names} if isinstance(values, Mapping) else values


def result_of(values: Any) -> Any:
    """Return the input of the next stage: the last message's text if there is one, otherwise the value."""
    if isinstance(values, Mapping) and (last := _last(values)) is not None:
        content = last.get("content") if isinstance(last, Mapping) else getattr(last, "content", None)
        if isinstance(content, str | list):
            return text_in(content)
    if isinstance(values, BaseMessage):
        return text_of(values)
    return plain(_without_interrupts(values))


def unanswered(values: Any, first: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the tool calls in new messages that no tool here has answered: the client must run them."""
    messages = [values] if isinstance(values, AIMessage) else _messages(values)
    before = {message.id for message in _messages(first) if isinstance(message, BaseMessage)}
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    for message in messages:
        if isinstance(message, AIMessage) and message.id not in before:
            yield from (call for call in message.tool_calls if call["id"] not in answered)


def answers(outputs: Any) -> bool:
    """Return whether a node's return value has an assistant message for the state, in any form."""
    if isinstance(outputs, AIMessage):
        return True
    if isinstance(outputs, list | tuple) and not _is_pairs(outputs):
        return any(answers(one) for one in outputs)
    update = getattr(outputs, "update", outputs) if type(outputs).__name__ == "Command" else outputs
    if isinstance(update, list | tuple):
        update = dict(update) if _is_pairs(update) else {MESSAGES: list(update)}
    found = update.get(MESSAGES) if isinstance(update, Mapping) else getattr(update, MESSAGES, None)
    if type(found).__name__ == "Overwrite":
        found = getattr(found, "value", None)
    return any(_is_answer(one) for one in (found if isinstance(found, list | tuple) else [found]))


def _is_pairs(value: Any) -> bool:
    """Return whether this is a mapping that is written as pairs of a name and a value."""
    return isinstance(value, list | tuple) and all(
        isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in value
    )


def _is_answer(message: Any) -> bool:
    if isinstance(message, Mapping):
        return (message.get("role") or message.get("type")) in _ASSISTANTS
    if isinstance(message, list | tuple) and len(message) == 2:
        return message[0] in _ASSISTANTS
    return isinstance(message, AIMessage)


def holds_more(values: Any, given: Any, tap: NodeTap) -> bool:
    """Return whether a value has more than what was emitted and what the client itself has sent.

    A value for another stage that is not text is always emitted.
    """
    if tap.hands_on and not _messages(values):
        return True
    if not isinstance(values, Mapping):
        return not _was_said(values, tap)
    own = given if isinstance(given, Mapping) else {}
    rest = {name: item for name, item in _without_interrupts(values).items() if name != MESSAGES}
    if any(not _was_said(item, tap) and not _same(item, own.get(name)) for name, item in rest.items()):
        return True
    return not _says_last(values, tap)


async def tell(values: Any, tap: NodeTap, stage: Stage) -> None:
    """Emit the event `result` with the value, without what was already emitted.

    Messages are left out if the last one was emitted, and documents if they were emitted. Raises TooLong.
    """
    if not isinstance(values, Mapping):
        await tap.emit(stage.custom("result", plain(values)))
        return
    left = _without_interrupts(values)
    if stage.hands_on and not _messages(values) and fits(said := plain(left), stage):
        await tap.emit(stage.custom("result", said))
        return
    rest = {name: item for name, item in left.items() if name != MESSAGES}
    if _messages(values) and not any(_is_something(item) for item in rest.values()):
        await tap.emit(stage.custom("result", result_of(values)))
    else:
        keeps = STRUCTURED not in values and not _says_last(values, tap)
        await tell_value(tap, stage, left if keeps else rest, is_rest=False)


def _says_last(values: Any, tap: NodeTap) -> bool:
    """Return whether the last message was emitted, or has no text."""
    last = _last(values)
    if last is None:
        return True
    if isinstance(last, BaseMessage):
        text = text_of(last)
        return text in tap.told if not isinstance(last, AIMessage) else not text or text in tap.told
    return False


def _was_said(value: Any, tap: NodeTap) -> bool:
    """Return whether a reader knows all of a value: it is empty, an emitted text, or emitted documents."""
    if not _is_something(value) or tap.has_told(value):
        return True
    if isinstance(value, str):
        return value in tap.told
    if isinstance(value, AIMessage):
        return not value.tool_calls and text_of(value) in tap.told
    return isinstance(value, list | tuple) and all(_was_said(item, tap) for item in value)


def _is_something(value: Any) -> bool:
    return value is not None and not (isinstance(value, str | list | tuple | Mapping) and not value)


def _same(value: Any, given: Any) -> bool:
    try:
        return bool(value == given)
    except Exception:  # an author's __eq__ may raise, or may compare item by item
        return False


def texts(values: Any) -> set[str]:
    """Return the texts of the messages in a state."""
    return {text_of(message) for message in _messages(values) if isinstance(message, BaseMessage)}


def _messages(values: Any) -> Sequence[Any]:
    found = values.get(MESSAGES) if isinstance(values, Mapping) else None
    return found if isinstance(found, list) else ()


def _last(values: Any) -> Any:
    messages = _messages(values)
    return messages[-1] if messages else None


def _without_interrupts(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {name: item for name, item in values.items() if name != INTERRUPT}
