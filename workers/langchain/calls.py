"""What one call of a model comes to: whether its answer is whole, why it ended, what it cost.

LangChain takes a stream that ends without an error for a whole answer, and completes tool arguments that are
cut (`{"a": 1, "b": 10` becomes `{"a": 1, "b": 10}`). Here an answer is whole only if the provider's end
marker came (docs/chains.md, The model's server). `Call` is pure; `Models` is the callback that follows the
calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelAPIError, ModelConnectionError
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import invalid_tool_call, tool_call

from workers.langchain.content import refusal_in, text_of
from workers.langchain.values import clean

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult

USAGE_FIELDS = ("input_tokens", "output_tokens", "total_tokens")
UNMARKED = "no_finish_reason"  # the tag of a model whose server sends no end marker
# LangChain's names (`ls_provider`) of providers whose integration shows a marker at each whole stream's end,
# by its source. Not Bedrock: one name stands for models that have a marker and for models that have none.
_MARKING = frozenset(
    {
        "openai",
        "azure",
        "anthropic",
        "google_genai",
        "ollama",
        "groq",
        "mistral",
        "deepseek",
        "fireworks",
        "together",
        "xai",
        "openrouter",
    }
)
# Where LangChain's integrations put the marker. `status` is that of OpenAI's Responses API.
MARKERS = frozenset({"finish_reason", "stop_reason", "stopReason", "done_reason", "done", "status"})
_FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "image_safety": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}
Paid = Callable[[Mapping[str, Any] | None, Mapping[str, int]], None]
OWN_INDEX = 1_000_000  # indices above are ours, of pieces of calls to which the server has given none
_STOPPED = frozenset({"length", "content_filter", "refusal"})  # the server says itself that there is no more


class CutOff(ModelConnectionError):
    """The model's answer ended without its end marker: the connection to the model was cut."""


class BrokenCall(ModelAPIError):
    """The model's answer is at its end, and a tool call in it has arguments that are not JSON."""


class Call:
    """One answer of one model. `marks`: its stream is whole only with an end marker."""

    __slots__ = (
        "_has_ended",
        "_is_refusal",
        "_pieces",
        "_streamed",
        "_whole",
        "finish",
        "is_inner",
        "marks",
        "metadata",
        "usage",
    )

    def __init__(
        self, *, marks: bool = False, is_inner: bool = False, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.marks = marks
        self.metadata = metadata  # of the run that is the call
        self.is_inner = is_inner  # a tool has asked
        self.finish = ""  # as `done` says it; empty where nothing was said
        self.usage: dict[str, int] = {}
        self._has_ended = False
        self._is_refusal = False
        self._streamed = False
        self._pieces: list[AIMessageChunk] = []  # chunks with pieces of tool calls
        self._whole: list[Mapping[str, Any]] = []  # tool calls of messages that came in one piece

    def take(self, message: Any) -> None:
        """The next chunk of the answer, or the whole answer of a model that does not stream."""
        metadata = getattr(message, "response_metadata", None)
        if metadata and not MARKERS.isdisjoint(metadata):
            self._has_ended = True
            self.finish = finish_of(metadata) or self.finish
        if usage := getattr(message, "usage_metadata", None):
            self.usage = added_usage(self.usage, usage)
        if self._is_refusal or (not _is_bare(message) and refusal_in(message)):
            self._is_refusal, self.finish = True, "refusal"
        if isinstance(message, AIMessageChunk):
            self._streamed = True
            if message.tool_call_chunks:
                self._pieces.append(message)
        elif isinstance(message, AIMessage):
            self._whole += message.tool_calls

    def streams(self) -> None:
        """The next chunk of the answer was nothing but text: all that `take` would note of it."""
        self._streamed = True

    def close(self, whole: Any = None) -> None:
        """The answer is at its end; `whole` is LangChain's sum of it, which loses the calls that were cut.

        A call is cut where its arguments are not a JSON object. Raises CutOff for an answer without its end,
        and BrokenCall for a call that is cut although nothing has stopped the model. `whole` loses such calls
        first, for whoever goes on with it all the same.
        """
        if not self._streamed:
            if whole is not None:
                self.take(whole)
            return
        calls = self._calls()
        cut = [call for call in calls if _arguments(call) is None]
        if isinstance(whole, AIMessage) and any(_lacks_index(piece) for piece in self._pieces):
            _put_right(whole, [call for call in calls if call not in cut])
        if cut and whole is not None:
            _set_aside(whole, cut)
        if not self._has_ended and (self.marks or cut):
            raise CutOff("the model's answer has no end")
        if cut and self.finish not in _STOPPED:
            raise BrokenCall("the arguments of a tool call are not a JSON object")

    def whole_calls(self) -> Sequence[Mapping[str, Any]]:
        """The tool calls of the answer, each with `name`, `args` and `id`, without those that were cut."""
        calls = [(call, _arguments(call)) for call in self._calls()]
        streamed = [
            {**call, "name": call["name"] or "", "args": args} for call, args in calls if args is not None
        ]
        return [*self._whole, *streamed]

    def _calls(self) -> Sequence[Mapping[str, Any]]:
        """The streamed calls as LangChain sums their pieces, the arguments still as text."""
        if not self._pieces:
            return ()
        first, *rest = (AIMessageChunk(content="", tool_call_chunks=pieces) for pieces in self._numbered())
        return (first + rest).tool_call_chunks if rest else first.tool_call_chunks

    def _numbered(self) -> Iterator[list[Any]]:
        """The pieces of calls, each with an index.

        Some servers send none. LangChain never adds up such pieces, which is right for whole calls alone. So
        a piece that has a name, or another id, begins a call, and one that has neither goes on with the last.
        """
        index, call_id = OWN_INDEX, None
        for message in self._pieces:
            pieces: list[Any] = []
            for piece in message.tool_call_chunks:
                if piece.get("index") is None:
                    said = piece.get("id")
                    is_same = bool(said) and said == call_id
                    if not is_same and (piece.get("name") or said or index == OWN_INDEX):
                        index, call_id = index + 1, said
                    known = {"name": None, "id": None} if is_same else {}
                    piece = {**piece, **known, "index": index}  # type: ignore[typeddict-item]
                pieces.append(piece)
            yield pieces


class Models(BaseCallbackHandler):
    """Follows every model call below a stage, also those of code that is not async.

    This callback is a plain one, called in line: what an async callback raises below code that is not async
    is dropped by LangChain, and such code would go on with half an answer.
    """

    raise_error = True
    run_inline = True

    def __init__(
        self, is_inner: Callable[[UUID | None], bool] = lambda parent: False, paid: Paid | None = None
    ) -> None:
        """`is_inner` says of the run that asks a model whether it is below a tool.

        `paid` is told the metadata and the usage of each call that has told its usage.
        """
        self.usage: dict[str, int] = {}  # of all calls that have ended
        self.finish = ""  # of the one that has ended last, but for those that tools have made
        self.said: set[str] = set()  # the whole text of each answer, but for those that tools have asked for
        self._is_inner = is_inner
        self._paid = paid
        self._open: dict[UUID, Call] = {}
        self._lock = Lock()  # calls end in several threads

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **given: Any
    ) -> None:
        """A model is asked."""
        metadata = given.get("metadata")
        provider = (metadata or {}).get("ls_provider")
        marks = provider in _MARKING and UNMARKED not in (given.get("tags") or ())
        is_inner = self._is_inner(parent_run_id)
        self._open[run_id] = Call(marks=marks, is_inner=is_inner, metadata=metadata)

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **given: Any
    ) -> None:
        """A model that knows no messages is asked: LangChain shows no end marker of it."""
        is_inner = self._is_inner(parent_run_id)
        self._open[run_id] = Call(is_inner=is_inner, metadata=given.get("metadata"))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **given: Any) -> None:
        """A piece of its answer."""
        self.take(run_id, chunk)

    def take(self, run_id: UUID, chunk: Any) -> None:
        """A piece of a model's answer."""
        if (message := getattr(chunk, "message", None)) is not None and (call := self._open.get(run_id)):
            call.take(message)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """Its answer is at its end. Raises CutOff and BrokenCall, as `Call.close` does."""
        call = self._open.pop(run_id, None) or Call()
        try:
            for generation in (response.generations or [[]])[0][:1]:
                message = getattr(generation, "message", None)
                if not call.is_inner:
                    self.said.add(generation.text if message is None else text_of(message))
                call.close(message)
        finally:
            self._add(call)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It has failed; what it has told of its usage until then was paid."""
        if call := self._open.pop(run_id, None):
            self._add(call)

    def let_go(self) -> None:
        """The stage is over, and its bill is made: nobody is told any more what a call has used.

        Who was told refers to this callback. Such a circle would keep all that belongs to the stage in memory
        until a full collection of garbage, which comes rarely.
        """
        self._paid = None

    def _add(self, call: Call) -> None:
        with self._lock:
            for name, tokens in call.usage.items():
                self.usage[name] = self.usage.get(name, 0) + tokens
            if not call.is_inner:
                self.finish = call.finish or self.finish
        if call.usage and (paid := self._paid) is not None:
            paid(call.metadata, call.usage)


class FedModels(Models):
    """The same for a graph, whose own callback (the feeder) hands on what it is given of an answer.

    A call that async code makes is judged where the feeder hears of its end: then LangChain need not call
    this one for each piece. The calls of other code are judged here, as those of every stage. Invariant: a
    call is judged once.
    """

    def __init__(self, is_inner: Callable[[UUID | None], bool], paid: Paid | None = None) -> None:
        super().__init__(is_inner, paid)
        self._fed: set[UUID] = set()  # calls that are open, and that async code has made

    @property
    def ignore_llm(self) -> bool:
        """LangChain leaves this callback out while all calls that are open are the feeder's."""
        return len(self._fed) == len(self._open) > 0

    def feed(self, run_id: UUID) -> None:
        """The feeder will hand on this call's end too."""
        if run_id in self._open:
            self._fed.add(run_id)

    def fed_end(self, response: LLMResult, run_id: UUID) -> None:
        """The end of a call, by the feeder. Raises CutOff and BrokenCall."""
        if run_id in self._fed:
            self._fed.discard(run_id)
            super().on_llm_end(response, run_id=run_id)

    def fed_error(self, error: BaseException, run_id: UUID) -> None:
        """A call has failed, by the feeder."""
        if run_id in self._fed:
            self._fed.discard(run_id)
            super().on_llm_error(error, run_id=run_id)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **given: Any) -> None:
        """A model that knows no messages is asked; the feeder tells it where LangChain does not."""
        if run_id not in self._open:
            super().on_llm_start(serialized, prompts, run_id=run_id, **given)

    def on_llm_new_token(self, token: Any, **given: Any) -> None:
        """The feeder has taken it."""

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """The end of a call that is not the feeder's. Raises CutOff and BrokenCall."""
        if run_id not in self._fed:
            super().on_llm_end(response, run_id=run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """Such a call has failed."""
        if run_id not in self._fed:
            super().on_llm_error(error, run_id=run_id)


def marks_its_end(model: Any) -> bool:
    """Whether this model's stream is whole only with an end marker: by the name of its provider."""
    provider = model._get_ls_params().get("ls_provider")  # what LangChain tells callbacks
    return provider in _MARKING and UNMARKED not in (model.tags or ())


def finish_of(metadata: Mapping[str, Any]) -> str:
    """Why an answer ended, by a message's `response_metadata`, in the words of docs/protocol.md (`done`).

    Empty where no reason is told. A reason that no row names is told as it is, in lower case.
    """
    said = metadata.get("finish_reason") or metadata.get("stop_reason") or metadata.get("stopReason")
    said = said or metadata.get("done_reason")
    if not said and (status := metadata.get("status")):
        details = metadata.get("incomplete_details")
        said = details.get("reason") if isinstance(details, Mapping) else None
        said = said or ("length" if status == "incomplete" else status)
    word = clean(said or "").lower()
    return _FINISHES.get(word, word)


def added_usage(before: Mapping[str, int], said: Mapping[str, Any]) -> dict[str, int]:
    """The usage of one call after another word on it.

    A word that counts the prompt again counts the whole call, and replaces what was said before. Any other
    word is a part: LangChain's integration for Gemini counts the prompt first, and then what was added.
    """
    fresh = {name: said.get(name) or 0 for name in USAGE_FIELDS}
    if before and not 0 < before["input_tokens"] <= fresh["input_tokens"]:
        return {name: before[name] + fresh[name] for name in USAGE_FIELDS}
    return fresh


def _arguments(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """A call's arguments, or None where they are not a JSON object. None at all are an empty object."""
    try:
        read = json.loads(call["args"] or "{}", strict=False)  # as LangChain reads a whole answer's
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def _is_bare(message: Any) -> bool:
    """Whether a message is nothing but text."""
    return type(message.content) is str and not message.additional_kwargs


def _lacks_index(message: AIMessageChunk) -> bool:
    return any(piece.get("index") is None for piece in message.tool_call_chunks)


def _put_right(whole: AIMessage, calls: Sequence[Mapping[str, Any]]) -> None:
    """Give a message the calls that its pieces amount to, where LangChain could not add them up."""
    own = [(call["name"] or "", _arguments(call) or {}, call["id"]) for call in calls]
    if own != [(call["name"], call["args"], call["id"]) for call in whole.tool_calls]:
        whole.tool_calls = [tool_call(name=name, args=args, id=call_id) for name, args, call_id in own]
        whole.invalid_tool_calls = []


def _set_aside(message: Any, cut: Sequence[Mapping[str, Any]]) -> None:
    """Make these calls of a message invalid ones, as LangChain does in an answer that came in one piece."""
    if not isinstance(message, AIMessage):
        return
    named = [(call["id"], call["name"] or "") for call in cut]
    kept = [call for call in message.tool_calls if (call["id"], call["name"]) not in named]
    if len(kept) == len(message.tool_calls):
        return  # LangChain has found them invalid itself
    message.tool_calls = kept
    message.invalid_tool_calls = [
        *message.invalid_tool_calls,
        *(invalid_tool_call(name=call["name"], args=call["args"], id=call["id"]) for call in cut),
    ]
