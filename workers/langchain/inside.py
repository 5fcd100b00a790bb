"""What happens inside of a chain, from LangChain's callbacks: tools, documents, custom events.

What happens below a tool is marked by the id of that tool's call (`within`). Values are made JSON here, so
what is compared with an earlier attempt is what stands in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from gateway.observe import telemetry
from gateway.protocol import Event
from gateway.streams.doubt import RETRY
from workers.langchain.calls import Models
from workers.langchain.keys import Call, CallKeys
from workers.langchain.outputs import output_of
from workers.langchain.replays import NOTHING, Logged, ToolEnd, kept
from workers.langchain.stage import WITHIN, Emit, Stage
from workers.langchain.tap import Tap
from workers.langchain.values import clean, plain

if TYPE_CHECKING:
    from langchain_core.documents import Document

MOST_DOCUMENTS = 50
EXCERPT_CHARACTERS = 500


class Inside(Tap):
    """One stage's callback; used within `listening`."""

    def __init__(self, emit: Emit, stage: Stage) -> None:
        super().__init__(emit, stage)
        self._within: dict[UUID | None, str] = {}  # the call of the tool below which a run is
        self.models = Models(self._within.__contains__, self._pay)
        self._calls: set[str] = set()  # told already, by their ids
        self._unnamed = 0  # calls to which the model has given no id
        self._tools: dict[UUID, tuple[str, str, Stage, Call | None, Logged | None]] = {}
        self._searches: dict[UUID, Stage] = {}
        self._documents: set[int] = set()  # told as sources: hashes of their texts
        self.keys = CallKeys(stage)

    @property
    def ignore_llm(self) -> bool:
        """The pieces of a model's answer, and its end, are for `models` alone."""
        return True

    @property
    def ignore_chat_model(self) -> bool:
        """The same."""
        return True

    async def call(self, call: Mapping[str, Any]) -> None:
        """A tool call that a model has asked for, and that the client is to run; told once by its id."""
        call_id = str(call.get("id") or "")
        if not call_id:
            self._unnamed += 1
            call_id = f"call_{self._unnamed}"
        if call_id not in self._calls:
            self._calls.add(call_id)
            await self.emit(self._stage.tool(clean(call["name"]), call_id, "started", plain(call["args"])))

    async def tell_sources(self, stage: Stage, documents: Sequence[Document]) -> None:
        """Documents, within bounds."""
        kept = documents[:MOST_DOCUMENTS]
        self._documents.update(hash(document.page_content) for document in kept)
        found = [source_of(document) for document in kept]
        await self.emit(stage.custom("sources", {"documents": found}))

    def has_told(self, value: Any) -> bool:
        """Whether this is a document, or a list of them, and all of them were told as sources."""
        documents = documents_in(value)
        return bool(documents) and all(hash(one.page_content) in self._documents for one in documents)

    async def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **given: Any
    ) -> None:
        """Perhaps a tool has begun something."""
        self._descend(run_id, parent_run_id)
        self.keys.begin(run_id, given.get("metadata"))

    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **given: Any) -> None:
        """It is at its end."""
        self._within.pop(run_id, None)
        self.keys.end(run_id)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It has failed."""
        self._within.pop(run_id, None)
        self.keys.end(run_id)

    async def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **given: Any,
    ) -> None:
        """A tool is called, with its whole arguments."""
        name = clean(given.get("name") or (serialized or {}).get("name") or "tool")
        call_id = str(given.get("tool_call_id") or run_id)
        stage = self._below(self.stage_of(given.get("metadata")), parent_run_id)
        self._within[run_id] = call_id
        self._calls.add(call_id)
        arguments = given.get("inputs")
        said = input_str if arguments is None else plain(arguments)
        event = stage.tool(name, call_id, "started", said)
        call = self.keys.write(name, said, str(given.get("tool_call_id") or ""), given.get("metadata"))
        logged = self._stage.replays.take(event)
        if logged is None and call is not None and call.policy != RETRY:
            logged = self._stage.replays.take_unknown(event)
        self._tools[run_id] = (name, call_id, stage, call, logged)
        if call is not None:
            call.fail = self.fail
            call.begin(event, logged, self._stage)
        if logged is not None:
            await self._stage.replays.turn(logged.started)
        await self.emit(event)
        if call is not None and call.policy != RETRY and call.answered() is NOTHING:
            await self.stands()  # a worker that dies within the tool leaves the call in the log
        if logged is not None and call is not None and call.answered() is not NOTHING:
            await self._say_below(logged, call_id)

    async def on_tool_end(self, output: Any, *, run_id: UUID, **given: Any) -> None:
        """A tool has answered."""
        self._within.pop(run_id, None)
        name, call_id, stage, call, logged = self._tools.pop(run_id)
        failed = getattr(output, "status", "") == "error"
        said = plain(output_of(output, call_id))
        end = stage.tool(name, call_id, "failed" if failed else "finished", said)
        if not failed and call is not None and call.given is not NOTHING:
            end = ToolEnd(end.type, end.data, kept(call.given, said))
        await self.emit(end)
        self._stage.replays.end(logged)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """A tool has raised; its words may quote a secret and go nowhere."""
        self._within.pop(run_id, None)
        name, call_id, stage, _, logged = self._tools.pop(run_id)
        self._stage.replays.end(logged)
        if not any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__):  # an interrupt is none
            await self.emit(stage.tool(name, call_id, "failed", "The tool failed."))

    async def _say_below(self, logged: Logged, call_id: str) -> None:
        """What an earlier attempt has said below a call stands, and belongs to the same call of this one."""
        telemetry.tools_replayed.add(1)
        self._stage.replays.skip(logged)
        before = logged.started.data["call_id"]
        for event in logged.below:
            moved = {WITHIN: call_id} if event.data[WITHIN] == before else {}
            await self.emit(Event(event.type, {**event.data, **moved}))

    async def on_retriever_start(
        self,
        serialized: Any,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **given: Any,
    ) -> None:
        """Documents are sought."""
        self._searches[run_id] = self._below(self.stage_of(given.get("metadata")), parent_run_id)

    async def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **given: Any) -> None:
        """Documents were found."""
        await self.tell_sources(self._searches.pop(run_id, self._stage), documents)

    async def on_retriever_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """They were not."""
        self._searches.pop(run_id, None)

    async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **given: Any) -> None:
        """The chain has dispatched an event of its own."""
        stage = self._below(self.stage_of(given.get("metadata")), run_id)
        await self.emit(stage.custom(clean(name), plain(data)))

    def stage_of(self, metadata: Mapping[str, Any] | None) -> Stage:
        """The stage that a run of LangChain's belongs to."""
        return self._stage

    def _pay(self, metadata: Mapping[str, Any] | None, usage: Mapping[str, int]) -> None:
        """A model's call has cost this."""
        self._stage.bill.add(self.stage_of(metadata).node, usage)

    def _descend(self, run_id: UUID, parent: UUID | None) -> str:
        """A run begins; the tool's call that it is below, if it is."""
        if call_id := self._within.get(parent, ""):
            self._within[run_id] = call_id
        return call_id

    def _below(self, stage: Stage, parent: UUID | None) -> Stage:
        """The stage, marked where the run `parent` is a tool's, or below one."""
        call_id = self._within.get(parent, "")
        return replace(stage, marks={**stage.marks, WITHIN: call_id}) if call_id else stage


def documents_in(value: Any) -> Sequence[Document]:
    """The documents of a value that is one, or a list of nothing else; of any other value none."""
    from langchain_core.documents import Document

    items = value if isinstance(value, list | tuple) else [value]
    return items if all(isinstance(item, Document) for item in items) else ()


def source_of(document: Document) -> dict[str, Any]:
    """A document as readers get it: where it is from, and an excerpt."""
    metadata = document.metadata
    source = metadata.get("source")
    known: dict[str, Any] = {
        "id": document.id,
        "title": str(metadata.get("title") or source or "")[:EXCERPT_CHARACTERS],
        "source": str(source or "")[:EXCERPT_CHARACTERS],
        "text": document.page_content[:EXCERPT_CHARACTERS],
    }
    score = metadata.get("score")
    return known | ({"score": score} if isinstance(score, int | float) else {})
