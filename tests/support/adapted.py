"""Run a Runnable with the adapter in this process, and show its events in a short form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langgraph.graph import START, StateGraph
from pydantic import Field

from gateway.protocol import Event, sse
from gateway.writing.matcher import Matcher, Published
from workers.langchain import Outcome, Stage, stream

HERE = Stage("g", "d", "stream-id")


class Scripted(BaseChatModel):
    """A model that answers with these messages, one for each turn of an agent.

    It streams each message word by word, with the tool calls at the end. It finds the number of the turn from
    the conversation, so an attempt that starts again gets the same answers as the first attempt.
    """

    answers: list[AIMessage] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Runnable[Any, Any]:
        """Return the model unchanged: the script already says which tools are called."""
        return self

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        return self.answers[turn % len(self.answers)].model_copy()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **given: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **given: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._next(messages)
        words = str(answer.text).split(" ")
        for n, word in enumerate(words):
            said = AIMessageChunk(content=word if n == len(words) - 1 else f"{word} ")
            yield ChatGenerationChunk(message=said)
        if answer.tool_calls:
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_calls=answer.tool_calls))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **given: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk


def says(text: str) -> Scripted:
    """Return a model that answers with this text."""
    return Scripted(answers=[AIMessage(text)])


def calls(name: str, call_id: str | None = "c1", text: str = "", /, **arguments: Any) -> AIMessage:
    """Return a model's message that calls this tool."""
    return AIMessage(text, tool_calls=[{"name": name, "args": arguments, "id": call_id}])


def graph_of(schema: Any, *nodes: Callable[..., Any], **options: Any) -> Any:
    """Return a graph that runs these nodes one after the other."""
    builder: Any = StateGraph(schema)
    before = START
    for node in nodes:
        builder.add_node(node.__name__, node)
        builder.add_edge(before, node.__name__)
        before = node.__name__
    return builder.compile(**options)


async def told(
    runnable: Any, given: Any = "q", *, here: Stage = HERE, standing: Sequence[Event] = ()
) -> tuple[list[Event], Outcome]:
    """Run the Runnable and return its events, in order, and its outcome."""
    events: list[Event] = []
    outcome = Outcome()

    async def emit(event: Event) -> None:
        events.append(event)

    await stream(runnable, given, {}, emit, here, outcome, standing)
    return events, outcome


def kinds(events: Sequence[Event], kind: str) -> list[Any]:
    """Return the data of all events of one type."""
    return [event.data for event in events if event.type == kind]


def texts(events: Sequence[Event]) -> dict[tuple[Any, ...], str]:
    """Return the text for each stage and message. A message is identified by number, member and path."""
    found: dict[tuple[Any, ...], str] = {}
    for data in kinds(events, ""):
        marks = (data.get("message"), data.get("member"), "/".join(data.get("path", ())))
        key = (data["stage"], *(mark for mark in marks if mark))
        found[key] = found.get(key, "") + data["delta_content"]
    return found


def result(events: Sequence[Event]) -> Any:
    """Return the data of the only `result` event, or None where there is no such event."""
    found = [data["data"] for data in kinds(events, "custom") if data["name"] == "result"]
    assert len(found) <= 1
    return found[0] if found else None


async def again(make: Callable[[], Any], given: Any = "q") -> None:
    """Check that an attempt goes on without a reset after a death at any point."""
    first, _ = await told(make(), given)
    for length in range(len(first) + 1):
        events, _ = await told(make(), given)
        matcher = Matcher(Published("g", 1, "0-0000", events=[read(event) for event in first[:length]]), 2)
        written = [new for event in events for new in matcher.take(event)] + matcher.end()
        assert [event.type for event in written] == [event.type for event in first[length:]]
        assert [bare(event) for event in written] == [bare(event) for event in first[length:]]


def read(event: Event) -> Event:
    """Return the event as it is read back from the log."""
    return Event(event.type, json.loads(sse.dumps(event.data)))


def bare(event: Event) -> Any:
    """Return the part of an event that must be equal in every attempt: the logged data without the ids of
    calls."""
    return {name: said for name, said in read(event).data.items() if name not in ("call_id", "within")}
