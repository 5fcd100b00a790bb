"""Emit what happens inside a chain, from LangChain's callbacks: tools, documents, custom events.

Events below a tool are marked with the id of that tool's call (`within`). Values are converted to JSON here.
So the values that are compared with an earlier attempt are the same as in the log.
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
    """The callback of one stage. It is used inside the `with` block of `listening`."""

    def __init__(self, emit: Emit, stage: Stage) -> None:
        super().__init__(emit, stage)
        self._within: dict[UUID | None, str] = {}  # run -> the tool call that it is below
        self.models = Models(self._within.__contains__, self._pay)
        self._calls: set[str] = set()  # ids of the calls that were already emitted
        self._unnamed = 0  # number of calls without an id from the model
        self._tools: dict[UUID, tuple[str, str, Stage, Call | None, Logged | None]] = {}
        self._searches: dict[UUID, Stage] = {}
        self._documents: set[int] = set()  # hashes of the texts already emitted as sources
        self.keys = CallKeys(stage)

    @property
    def ignore_llm(self) -> bool:
        """Only `models` needs the pieces of a model's answer and its end."""
        return True

    @property
    def ignore_chat_model(self) -> bool:
        """Only `models` needs the calls of chat models."""
        return True

    async def call(self, call: Mapping[str, Any]) -> None:
        """Emit a tool call that a model has made and that the client must run. Each id is emitted once."""
        call_id = str(call.get("id") or "")
        if not call_id:
            self._unnamed += 1
            call_id = f"call_{self._unnamed}"
        if call_id not in self._calls:
            self._calls.add(call_id)
            await self.emit(self._stage.tool(clean(call["name"]), call_id, "started", plain(call["args"])))

    async def tell_sources(self, stage: Stage, documents: Sequence[Document]) -> None:
        """Emit documents as sources, within limits."""
        kept = documents[:MOST_DOCUMENTS]
        self._documents.update(hash(document.page_content) for document in kept)
        found = [source_of(document) for document in kept]
        await self.emit(stage.custom("sources", {"documents": found}))

    def has_told(self, value: Any) -> bool:
        """Return whether this is a document, or a list of them, and all were already emitted as sources."""
        documents = documents_in(value)
        return bool(documents) and all(hash(one.page_content) in self._documents for one in documents)

    async def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **given: Any
    ) -> None:
        """Note whether the new run is below a tool."""
        self._descend(run_id, parent_run_id)
        self.keys.begin(run_id, given.get("metadata"))

    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **given: Any) -> None:
        """Forget the run, because it has ended."""
        self._within.pop(run_id, None)
        self.keys.end(run_id)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """Forget the run, because it has failed."""
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
        """Emit the start of a tool call, with its complete arguments."""
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
            await self.stands()  # if the worker dies in the tool, the call is in the log
        if logged is not None and call is not None and call.answered() is not NOTHING:
            await self._say_below(logged, call_id)

    async def on_tool_end(self, output: Any, *, run_id: UUID, **given: Any) -> None:
        """Emit the end of a tool call, with the answer."""
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
        """Emit the failure of a tool call. The exception's text may quote a secret, so it is not emitted."""
        self._within.pop(run_id, None)
        name, call_id, stage, _, logged = self._tools.pop(run_id)
        self._stage.replays.end(logged)
        # an interrupt is not a failure
        if not any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__):
            await self.emit(stage.tool(name, call_id, "failed", "The tool failed."))

    async def _say_below(self, logged: Logged, call_id: str) -> None:
        """Emit again the events of an earlier attempt below this tool call, under the new call id."""
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
        """Note the stage of a search for documents."""
        self._searches[run_id] = self._below(self.stage_of(given.get("metadata")), parent_run_id)

    async def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **given: Any) -> None:
        """Emit the found documents."""
        await self.tell_sources(self._searches.pop(run_id, self._stage), documents)

    async def on_retriever_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """Forget the search, because it has failed."""
        self._searches.pop(run_id, None)

    async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **given: Any) -> None:
        """Emit an event that the chain itself has dispatched."""
        stage = self._below(self.stage_of(given.get("metadata")), run_id)
        await self.emit(stage.custom(clean(name), plain(data)))

    def stage_of(self, metadata: Mapping[str, Any] | None) -> Stage:
        """Return the stage to which a LangChain run belongs."""
        return self._stage

    def _pay(self, metadata: Mapping[str, Any] | None, usage: Mapping[str, int]) -> None:
        """Add the usage of a model call to the bill."""
        self._stage.bill.add(self.stage_of(metadata).node, usage)

    def _descend(self, run_id: UUID, parent: UUID | None) -> str:
        """Note a new run. Return the tool call that the run is below, or an empty string."""
        if call_id := self._within.get(parent, ""):
            self._within[run_id] = call_id
        return call_id

    def _below(self, stage: Stage, parent: UUID | None) -> Stage:
        """Return the stage, marked with a tool call if the run `parent` is the tool's run or below it."""
        call_id = self._within.get(parent, "")
        return replace(stage, marks={**stage.marks, WITHIN: call_id}) if call_id else stage


def documents_in(value: Any) -> Sequence[Document]:
    """Return the documents if the value is a document, or a list of only documents; otherwise nothing."""
    from langchain_core.documents import Document

    items = value if isinstance(value, list | tuple) else [value]
    return items if all(isinstance(item, Document) for item in items) else ()


def source_of(document: Document) -> dict[str, Any]:
    """Return a document as readers get it: its source, and an excerpt."""
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
