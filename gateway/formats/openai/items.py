"""The output items of OpenAI's Responses: what each says in a stream, and what it is in the whole. No I/O.

A text of the chain's last stage is a `message`; those of other stages, and what a model says of its
reasoning, are `reasoning` with a summary: a client's `output_text` adds up messages alone. A tool call is an
`mcp_call`, OpenAI's word for one that the server itself makes and answers: a `function_call` would have the
client run it again. One that is for the client becomes such a `function_call` at the end, when it is known
that nobody here answers it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gateway.protocol import sse
from gateway.protocol.fold import StageText

Told = tuple[str, dict[str, Any]]  # an event's type, and its fields


@dataclass(eq=False, slots=True)
class Item(ABC):
    """An item, open until it is closed. `born`: the offset of its first event, which a reset compares."""

    index: int
    stream: str
    born: int
    stage: StageText | None
    status: str = "in_progress"

    prefix: ClassVar[str] = ""

    @property
    def id(self) -> str:
        """As long as the stream is, no two items have the same."""
        return f"{self.prefix}_{self.stream}_{self.index}"

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """It, as it stands."""

    @abstractmethod
    def opening(self) -> Iterable[Told]:
        """It begins."""

    @abstractmethod
    def closing(self, status: str) -> Iterable[Told]:
        """It ends: `completed` or `incomplete`."""

    def _at(self, **fields: Any) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, **fields}

    def _added(self, **fields: Any) -> Told:
        return "response.output_item.added", {"output_index": self.index, "item": self.document() | fields}

    def _done(self) -> Told:
        return "response.output_item.done", {"output_index": self.index, "item": self.document()}


@dataclass(eq=False, slots=True)
class Text(Item):
    """A message or reasoning: one part, which grows."""

    pieces: list[str] = field(default_factory=list)

    part_kind: ClassVar[str] = ""
    text_kind: ClassVar[str] = ""
    place: ClassVar[dict[str, int]] = {}

    @property
    def text(self) -> str:
        """So far; it is put together once, however often it is asked for."""
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @abstractmethod
    def part(self, text: str) -> dict[str, Any]:
        """Its one part, with this text."""

    def more(self, delta: str) -> Told:
        """A piece."""
        self.pieces.append(delta)
        return f"{self.text_kind}.delta", self._said(delta=delta)

    def closing(self, status: str) -> Iterable[Told]:
        """The whole text, its part, the item."""
        self.status = status
        text = self.text
        yield f"{self.text_kind}.done", self._said(text=text)
        yield f"{self.part_kind}.done", self._at(**self.place, part=self.part(text))
        yield self._done()

    def _said(self, **fields: Any) -> dict[str, Any]:
        return self._at(**self.place, **fields)


@dataclass(eq=False, slots=True)
class Message(Text):
    """What the chain says."""

    cited: list[dict[str, Any]] = field(default_factory=list)

    prefix: ClassVar[str] = "msg"
    part_kind: ClassVar[str] = "response.content_part"
    text_kind: ClassVar[str] = "response.output_text"
    place: ClassVar[dict[str, int]] = {"content_index": 0}

    def part(self, text: str) -> dict[str, Any]:
        """A text."""
        cited = [*self.cited] if text else []
        return {"type": "output_text", "text": text, "annotations": cited, "logprobs": []}

    def cites(self, page: Mapping[str, Any]) -> Told:
        """A page that its text cites; without a place in the text, what is cited stands at its end."""
        end = len(self.text)
        whole = {"type": "url_citation", "title": "", "start_index": end, "end_index": end, **page}
        self.cited.append(whole)
        number = len(self.cited) - 1
        return f"{self.text_kind}.annotation.added", self._at(
            **self.place, annotation_index=number, annotation=whole
        )

    def document(self) -> dict[str, Any]:
        """A message."""
        content = [self.part(self.text)]
        return {
            "type": "message",
            "id": self.id,
            "role": "assistant",
            "status": self.status,
            "content": content,
        }

    def opening(self) -> Iterable[Told]:
        """The message, then its part: clients append the one to the other."""
        yield self._added(content=[])
        yield f"{self.part_kind}.added", self._at(**self.place, part=self.part(""))

    def _said(self, **fields: Any) -> dict[str, Any]:
        return self._at(**self.place, **fields, logprobs=[])


@dataclass(eq=False, slots=True)
class Refusal(Message):
    """The words by which a model refuses: a message too, of another kind of part."""

    text_kind: ClassVar[str] = "response.refusal"

    def part(self, text: str) -> dict[str, Any]:
        """A refusal."""
        return {"type": "refusal", "refusal": text}

    def more(self, delta: str) -> Told:
        """A piece."""
        self.pieces.append(delta)
        return f"{self.text_kind}.delta", self._at(**self.place, delta=delta)

    def closing(self, status: str) -> Iterable[Told]:
        """The whole of it, its part, the item."""
        self.status = status
        yield f"{self.text_kind}.done", self._at(**self.place, refusal=self.text)
        yield f"{self.part_kind}.done", self._at(**self.place, part=self.part(self.text))
        yield self._done()


@dataclass(eq=False, slots=True)
class Reasoning(Text):
    """What the chain says on its way."""

    prefix: ClassVar[str] = "rs"
    part_kind: ClassVar[str] = "response.reasoning_summary_part"
    text_kind: ClassVar[str] = "response.reasoning_summary_text"
    place: ClassVar[dict[str, int]] = {"summary_index": 0}

    @classmethod
    def of(cls, item: Text) -> Reasoning:
        """A message that has turned out not to be the answer."""
        return cls(item.index, item.stream, item.born, item.stage, item.status, item.pieces)

    def part(self, text: str) -> dict[str, Any]:
        """A summary."""
        return {"type": "summary_text", "text": text}

    def document(self) -> dict[str, Any]:
        """Reasoning."""
        return {"type": "reasoning", "id": self.id, "summary": [self.part(self.text)], "status": self.status}

    def opening(self) -> Iterable[Told]:
        """The item, then its part."""
        yield self._added(summary=[])
        yield f"{self.part_kind}.added", self._at(**self.place, part=self.part(""))


@dataclass(eq=False, slots=True)
class Aside(Reasoning):
    """What the last stage says that is not the answer, as far as is known."""


@dataclass(eq=False, slots=True)
class Call(Item):
    """A tool call; `label` is the stage that makes it."""

    name: str = ""
    label: str = ""
    arguments: str = ""
    output: str | None = None
    error: dict[str, Any] | None = None

    prefix: ClassVar[str] = "mcp"

    def document(self) -> dict[str, Any]:
        """A call that the server makes."""
        return {
            "type": "mcp_call",
            "id": self.id,
            "server_label": self.label,
            "name": self.name,
            "arguments": self.arguments,
            "status": self.status,
            "output": self.output,
            "error": self.error,
            "approval_request_id": None,
        }

    def opening(self) -> Iterable[Told]:
        """The call, and all its arguments."""
        yield self._added(arguments="")
        yield "response.mcp_call.in_progress", self._at()
        yield "response.mcp_call_arguments.delta", self._at(delta=self.arguments)
        yield "response.mcp_call_arguments.done", self._at(arguments=self.arguments)

    def answered(self, output: Any, *, failed: bool) -> Iterable[Told]:
        """It ends, with what the tool has said."""
        said = json_text(output)
        self.output = None if failed else said
        self.error = (
            {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": said}]}
            if failed
            else None
        )
        self.status = "failed" if failed else "completed"
        yield f"response.mcp_call.{self.status}", self._at()
        yield self._done()

    def closing(self, status: str) -> Iterable[Told]:
        """It ends unanswered, however the rest does."""
        self.status = "incomplete"
        yield self._done()


@dataclass(eq=False, slots=True)
class FunctionCall(Item):
    """A tool call that the client is to run, and whose output it sends back."""

    call_id: str = ""
    name: str = ""
    arguments: str = ""

    prefix: ClassVar[str] = "fc"

    def document(self) -> dict[str, Any]:
        """A call that is the client's."""
        return {
            "type": "function_call",
            "id": self.id,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
            "status": self.status,
        }

    def opening(self) -> Iterable[Told]:
        """The call, and all its arguments."""
        yield self._added(arguments="")
        yield "response.function_call_arguments.delta", self._at(delta=self.arguments)
        yield "response.function_call_arguments.done", self._at(name=self.name, arguments=self.arguments)

    def closing(self, status: str) -> Iterable[Told]:
        """It is whole."""
        self.status = "completed"
        yield self._done()


@dataclass(eq=False, slots=True)
class ApprovalRequest(Item):
    """A call for which leave is asked.

    `approval` is its name among all such calls; `label` is the chain's last stage.
    """

    approval: str = ""
    name: str = ""
    label: str = ""
    arguments: str = ""

    prefix: ClassVar[str] = "mcpr"

    @property
    def id(self) -> str:
        """What the answer names."""
        return f"{self.prefix}_{self.approval}"

    def document(self) -> dict[str, Any]:
        """What is asked."""
        return {
            "type": "mcp_approval_request",
            "id": self.id,
            "server_label": self.label,
            "name": self.name,
            "arguments": self.arguments,
        }

    def opening(self) -> Iterable[Told]:
        """All of it."""
        yield self._added()

    def closing(self, status: str) -> Iterable[Told]:
        """It is whole."""
        yield self._done()


def json_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else sse.dumps(value).decode()
