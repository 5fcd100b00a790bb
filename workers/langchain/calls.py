"""Judge one call of a model: whether its answer is complete, why it ended, and what it cost.

LangChain accepts a stream that ends without an error as a complete answer. It also completes tool arguments
that are cut (`{"a": 1, "b": 10` becomes `{"a": 1, "b": 10}`). Here an answer is complete only if the
provider's end marker came (docs/chains.md, The model's server). `Call` is pure. `Models` is the callback that
follows the calls.
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
UNMARKED = "no_finish_reason"  # the tag for a model whose server sends no end marker
# LangChain's names (`ls_provider`) of the providers whose integration, by its source, shows an end marker for
# each complete stream. Bedrock is not included: this one name covers models with a marker and models without
# one.
_MARKING = frozenset(
    {"openai", "azure", "anthropic", "google_genai", "ollama", "groq", "mistral", "deepseek"}
    | {"fireworks", "together", "xai", "openrouter"}
)
# The fields in which LangChain's integrations put the marker. `status` is from OpenAI's Responses API.
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
OWN_INDEX = 1_000_000  # indices above this are given here, to pieces without an index
# with these, the server itself has ended the answer early
_STOPPED = frozenset({"length", "content_filter", "refusal"})


class CutOff(ModelConnectionError):
    """The model's answer ended without its end marker: the connection to the model was cut."""


class BrokenCall(ModelAPIError):
    """The model's answer has ended, and a tool call in it has arguments that are not JSON."""


class Call:
    """One answer of one model. `marks`: its stream is complete only with an end marker."""

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
        self.metadata = metadata  # of LangChain's run of this call
        self.is_inner = is_inner  # True: a tool has called the model
        self.finish = ""  # the finish reason of `done`; empty if unknown
        self.usage: dict[str, int] = {}
        self._has_ended = False
        self._is_refusal = False
        self._streamed = False
        self._pieces: list[AIMessageChunk] = []  # chunks that have pieces of tool calls
        self._whole: list[Mapping[str, Any]] = []  # tool calls of messages that were not streamed

    def take(self, message: Any) -> None:
        """Add the next chunk of the answer, or the whole answer of a model that does not stream."""
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
        """Note that a chunk of nothing but text came. `take` would note no more of such a chunk."""
        self._streamed = True

    def close(self, whole: Any = None) -> None:
        """End the answer. `whole` is LangChain's sum of its chunks; cut tool calls are removed from it.

        A tool call is cut if its arguments are not a JSON object. Raises CutOff for an incomplete answer.
        Raises BrokenCall for a cut call if the server did not end the answer early. The cut calls are removed
        from `whole` first, in case the chain catches the exception and uses it.
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
        """Return the complete tool calls of the answer, each with `name`, `args` and `id`."""
        calls = [(call, _arguments(call)) for call in self._calls()]
        streamed = [
            {**call, "name": call["name"] or "", "args": args} for call, args in calls if args is not None
        ]
        return [*self._whole, *streamed]

    def _calls(self) -> Sequence[Mapping[str, Any]]:
        """Return the streamed calls as LangChain adds up their pieces. The arguments are still text."""
        if not self._pieces:
            return ()
        first, *rest = (AIMessageChunk(content="", tool_call_chunks=pieces) for pieces in self._numbered())
        return (first + rest).tool_call_chunks if rest else first.tool_call_chunks

    def _numbered(self) -> Iterator[list[Any]]:
        """Yield the pieces of calls, each with an index.

        Some servers send no index. LangChain never adds up such pieces, which is right only for complete
        calls. So a piece with a name, or with another id, begins a call. A piece with neither continues the
        last call.
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
    """Follows every model call of a stage, also calls by code that is not async.

    This is a plain callback that is called in line. If an async callback raises an exception below code that
    is not async, LangChain drops the exception. Such code would then continue with half an answer.
    """

    raise_error = True
    run_inline = True

    def __init__(
        self, is_inner: Callable[[UUID | None], bool] = lambda parent: False, paid: Paid | None = None
    ) -> None:
        """`is_inner` is called with the parent run of a model call.

        It returns whether that run is below a tool. `paid` is called with the metadata and the usage of each
        call that has reported its usage.
        """
        self.usage: dict[str, int] = {}  # token usage of all ended calls
        self.finish = ""  # finish reason of the last ended call that no tool has made
        self.said: set[str] = set()  # The complete text of each answer, except answers to calls by tools.
        self._is_inner = is_inner
        self._paid = paid
        self._open: dict[UUID, Call] = {}
        self._lock = Lock()  # calls may end in several threads

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **given: Any
    ) -> None:
        """Begin a call of a chat model."""
        metadata = given.get("metadata")
        provider = (metadata or {}).get("ls_provider")
        marks = provider in _MARKING and UNMARKED not in (given.get("tags") or ())
        is_inner = self._is_inner(parent_run_id)
        self._open[run_id] = Call(marks=marks, is_inner=is_inner, metadata=metadata)

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **given: Any
    ) -> None:
        """Begin a call of a text model. LangChain shows no end marker for such a model."""
        is_inner = self._is_inner(parent_run_id)
        self._open[run_id] = Call(is_inner=is_inner, metadata=given.get("metadata"))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **given: Any) -> None:
        """Add a piece of the answer."""
        self.take(run_id, chunk)

    def take(self, run_id: UUID, chunk: Any) -> None:
        """Add a piece of a model's answer."""
        if (message := getattr(chunk, "message", None)) is not None and (call := self._open.get(run_id)):
            call.take(message)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """End the call. Raises CutOff and BrokenCall, as `Call.close` does."""
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
        """End a call that has failed. The usage that it reported before was paid."""
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
    """The same for a graph, whose own callback (the feeder) passes on the pieces of an answer.

    A call by async code is judged when the feeder learns of its end. So LangChain need not call this callback
    for each piece. Calls by other code are judged here, as in every stage. Invariant: a call is judged once.
    """

    def __init__(self, is_inner: Callable[[UUID | None], bool], paid: Paid | None = None) -> None:
        super().__init__(is_inner, paid)
        self._fed: set[UUID] = set()  # open calls that were made by async code

    @property
    def ignore_llm(self) -> bool:
        """LangChain skips this callback while all open calls are the feeder's."""
        return len(self._fed) == len(self._open) > 0

    def feed(self, run_id: UUID) -> None:
        """Note that the feeder will also report the end of this call."""
        if run_id in self._open:
            self._fed.add(run_id)

    def fed_end(self, response: LLMResult, run_id: UUID) -> None:
        """End a call, when the feeder reports its end. Raises CutOff and BrokenCall."""
        if run_id in self._fed:
            self._fed.discard(run_id)
            super().on_llm_end(response, run_id=run_id)

    def fed_error(self, error: BaseException, run_id: UUID) -> None:
        """End a failed call, when the feeder reports its failure."""
        if run_id in self._fed:
            self._fed.discard(run_id)
            super().on_llm_error(error, run_id=run_id)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **given: Any) -> None:
        """Begin a call of a text model. The feeder calls this if LangChain does not."""
        if run_id not in self._open:
            super().on_llm_start(serialized, prompts, run_id=run_id, **given)

    def on_llm_new_token(self, token: Any, **given: Any) -> None:
        """Do nothing, because the feeder has already added the piece."""

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """End a call that is not the feeder's. Raises CutOff and BrokenCall."""
        if run_id not in self._fed:
            super().on_llm_end(response, run_id=run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """End a failed call that is not the feeder's."""
        if run_id not in self._fed:
            super().on_llm_error(error, run_id=run_id)


def marks_its_end(model: Any) -> bool:
    """Return whether this model's stream is complete only with an end marker. Its provider's name decides."""
    provider = model._get_ls_params().get("ls_provider")  # what LangChain passes to callbacks
    return provider in _MARKING and UNMARKED not in (model.tags or ())


def finish_of(metadata: Mapping[str, Any]) -> str:
    """Return why an answer ended, in the words of docs/protocol.md (`done`).

    `metadata` is `response_metadata`. Empty: no reason is given. A reason that is not in the table is
    returned as it is, in lower case.
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
    """Return the usage of one call after one more report of it.

    If a report counts the prompt again, it counts the whole call and replaces the earlier reports. Any other
    report is a part: LangChain's integration for Gemini reports the prompt first, and then what was added.
    """
    fresh = {name: said.get(name) or 0 for name in USAGE_FIELDS}
    if before and not 0 < before["input_tokens"] <= fresh["input_tokens"]:
        return {name: before[name] + fresh[name] for name in USAGE_FIELDS}
    return fresh


def _arguments(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a call's arguments, or None if they are not a JSON object.

    Empty arguments are an empty object.
    """
    try:
        read = json.loads(call["args"] or "{}", strict=False)  # as LangChain reads those of a complete answer
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def _is_bare(message: Any) -> bool:
    """Return whether a message is only text."""
    return type(message.content) is str and not message.additional_kwargs


def _lacks_index(message: AIMessageChunk) -> bool:
    return any(piece.get("index") is None for piece in message.tool_call_chunks)


def _put_right(whole: AIMessage, calls: Sequence[Mapping[str, Any]]) -> None:
    """Replace the calls of a message by the sum of their pieces, if LangChain could not add up the pieces."""
    own = [(call["name"] or "", _arguments(call) or {}, call["id"]) for call in calls]
    if own != [(call["name"], call["args"], call["id"]) for call in whole.tool_calls]:
        whole.tool_calls = [tool_call(name=name, args=args, id=call_id) for name, args, call_id in own]
        whole.invalid_tool_calls = []


def _set_aside(message: Any, cut: Sequence[Mapping[str, Any]]) -> None:
    """Make these calls of a message invalid calls, as LangChain does in an answer that is not streamed."""
    if not isinstance(message, AIMessage):
        return
    named = [(call["id"], call["name"] or "") for call in cut]
    kept = [call for call in message.tool_calls if (call["id"], call["name"]) not in named]
    if len(kept) == len(message.tool_calls):
        return  # LangChain has already made them invalid
    message.tool_calls = kept
    message.invalid_tool_calls = [
        *message.invalid_tool_calls,
        *(invalid_tool_call(name=call["name"], args=call["args"], id=call["id"]) for call in cut),
    ]
