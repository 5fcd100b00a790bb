"""A chat model that gives the answers which a test has written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

Answer = str | AIMessage | BaseException


class Scripted(BaseChatModel):
    """A chat model with fixed answers: `Scripted("one two")` answers `"one two"`, one word per chunk.

    A single text is the answer of each call. Several answers are given one after the other, in the order of
    the calls. A call after the last answer raises AssertionError. An answer is a text, a message (`calls`
    makes one that calls a tool), or an exception, which the model raises.

    `asked` contains the messages of each call, in order.
    """

    answers: tuple[Any, ...] = ()
    _numbers: Iterator[int] = PrivateAttr(default_factory=count)
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    def __init__(self, *answers: Answer, **given: Any) -> None:
        if answers:
            given["answers"] = answers
        super().__init__(**given)
        if not self.answers:
            raise ValueError("Scripted needs at least one answer")

    @property
    def asked(self) -> list[list[BaseMessage]]:
        """The messages of each call so far."""
        return self._asked

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Runnable[Any, Any]:
        """Return the model itself, because the script decides which tools are called."""
        return self

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        number = next(self._numbers)
        self._asked.append(messages)
        if number >= len(self.answers):
            if len(self.answers) > 1 or not isinstance(self.answers[0], str):
                raise AssertionError(
                    f"the script has {len(self.answers)} answers, and one more was asked for"
                )
            number = 0
        answer = self.answers[number]
        if isinstance(answer, BaseException):
            raise answer
        return _message(answer, number)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **given: Any,
    ) -> ChatResult:
        answer = self._next(messages)
        answer.response_metadata = {"finish_reason": _reason(answer), **answer.response_metadata}
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **given: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from _chunks(self._next(messages))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **given: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(self._next(messages)):
            yield chunk


def calls(name: str, /, **arguments: Any) -> AIMessage:
    """Return an answer without text that calls the tool `name` with these arguments."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": None}])


def _message(answer: str | AIMessage, number: int) -> AIMessage:
    """Return the answer with this number as a new message. Tool calls without an id get one."""
    made = AIMessage(answer) if isinstance(answer, str) else answer.model_copy(deep=True)
    for place, call in enumerate(made.tool_calls, 1):
        call["id"] = call["id"] or f"call_{number + 1}_{place}"
    return made


def _reason(answer: AIMessage) -> str:
    return "tool_calls" if answer.tool_calls else "stop"


def _chunks(answer: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Yield the answer word by word, each with the space before it; then its calls, and why it ends."""
    said = answer.content
    pieces: list[Any] = _words(said) if isinstance(said, str) else [[part] for part in said]
    for piece in pieces:
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece, id=answer.id))
    end = AIMessageChunk(
        content="" if isinstance(said, str) else [],
        id=answer.id,
        tool_calls=answer.tool_calls,
        usage_metadata=answer.usage_metadata,
        additional_kwargs=answer.additional_kwargs,
        response_metadata={"finish_reason": _reason(answer), **answer.response_metadata},
    )
    yield ChatGenerationChunk(message=end)


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [word for word in (first, *(f" {other}" for other in others)) if word]
