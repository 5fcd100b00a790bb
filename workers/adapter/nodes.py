"""The callback of a graph: nodes begin and end, and their models' tokens, beside what `tap` knows.

A node is found as LangGraph's own `messages` handler finds it: by a run that bears the node's name. The path
of its checkpoint names the task, so that runs of one node are told apart, and what a subgraph's nodes say
belongs to the node that runs it. Models that a tool asks are the tool's, and not shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from gateway import protocol
from gateway.protocol import Event, EventType
from workers.adapter.chunks import Emit, Stage, reasoning_of, text_of
from workers.adapter.tap import Tap
from workers.adapter.values import clean

if TYPE_CHECKING:
    from langchain_core.outputs import ChatGenerationChunk, GenerationChunk, LLMResult

HIDDEN, SILENT = "langsmith:hidden", "nostream"  # LangGraph's tags
PATH = "langgraph_checkpoint_ns"


@dataclass(slots=True)
class _Node:
    """One run of a node."""

    stage: Stage
    path: str
    index: int
    step: int


@dataclass(slots=True)
class _Speaker:
    """A model that answers within a node."""

    stage: Stage
    has_spoken: bool = False


class NodeTap(Tap, _StreamingCallbackHandler):  # type: ignore[type-arg]  # marks: models asked are to stream
    """`names` are the graph's nodes, in order; `standing` what earlier attempts have shown for good."""

    def __init__(self, emit: Emit, stage: Stage, names: Sequence[str], standing: Sequence[Event]) -> None:
        super().__init__(emit, stage)
        self.has_spoken = bool(standing)
        self._names = [name for name in names if not name.startswith("__")]
        self._runs = Counter(
            event.data["name"]
            for event in standing
            if event.type is EventType.STAGE and event.data["state"] == "started"
        )
        self._nodes: dict[UUID, _Node] = {}
        self._stages: dict[str, Stage] = {}  # by the path of the node's task
        self._speakers: dict[UUID, _Speaker] = {}
        self._within_tools: set[UUID] = set()
        self._shown: set[str] = set()  # messages, by their ids

    @property
    def ignore_llm(self) -> bool:
        """The pieces of a model's answer are its node's text."""
        return False

    def tap_output_aiter(self, run_id: UUID, output: Any) -> Any:
        """Of the marker's protocol: chunks are taken as they are told."""
        return output

    def tap_output_iter(self, run_id: UUID, output: Any) -> Any:
        """The same, of code that is not async."""
        return output

    async def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **given: Any,
    ) -> None:
        """Perhaps a node begins."""
        if self._is_within_tool(run_id, parent_run_id) or not metadata or HIDDEN in (tags or ()):
            return
        name, path = metadata.get("langgraph_node"), metadata.get(PATH, "")
        if name is None or given.get("name") != name or "|" in path or path in self._stages:
            return
        self._runs[name] += 1
        stage = replace(self._stage, name=clean(name), run=self._runs[name])
        index = self._names.index(name) if name in self._names else 0
        self._nodes[run_id] = node = _Node(stage, path, index, metadata.get("langgraph_step", 0))
        self._stages[path] = stage
        for message in _messages(inputs):
            self._is_new(message)
        await self.emit(self._event(node, finished=False))

    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **given: Any) -> None:
        """Perhaps a node has ended; messages that it made without a model are its text."""
        self._within_tools.discard(run_id)
        if (node := self._nodes.pop(run_id, None)) is None:
            return
        for message in _messages(outputs):
            if self._is_new(message) and isinstance(message, AIMessage):
                await self._say(node.stage, text_of(message))
        await self.emit(self._event(node, finished=True))
        self._stages.pop(node.path, None)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """A node that raises, or stops to ask, does not finish."""
        self._within_tools.discard(run_id)
        if node := self._nodes.pop(run_id, None):
            self._stages.pop(node.path, None)

    async def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **given: Any,
    ) -> None:
        """A model is asked."""
        if not self._is_within_tool(run_id, parent_run_id) and SILENT not in (tags or ()):
            self._speakers[run_id] = _Speaker(self.stage_of(metadata))

    async def on_llm_start(self, serialized: Any, prompts: Any, **given: Any) -> None:
        """A model that knows no messages is asked."""
        await self.on_chat_model_start(serialized, prompts, **given)

    async def on_llm_new_token(
        self,
        token: Any,
        *,
        run_id: UUID,
        chunk: ChatGenerationChunk | GenerationChunk | None = None,
        **given: Any,
    ) -> None:
        """A piece of its answer."""
        if (speaker := self._speakers.get(run_id)) is None:
            return
        message = getattr(chunk, "message", None)
        if message is not None and (reasoning := reasoning_of(message)):
            await self.emit(speaker.stage.custom("reasoning", {"delta": reasoning}))
        if delta := text_of(message if message is not None else token):
            speaker.has_spoken = True
            await self._say(speaker.stage, delta)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """Its whole answer, which is its text where it did not stream."""
        speaker = self._speakers.pop(run_id, None)
        self._within_tools.discard(run_id)
        for generation in (response.generations or [[]])[0][:1]:
            message = getattr(generation, "message", None)
            if message is not None:
                self._is_new(message)
            if speaker is not None and not speaker.has_spoken:
                await self._say(speaker.stage, text_of(message if message is not None else generation.text))

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It has failed."""
        self._speakers.pop(run_id, None)
        self._within_tools.discard(run_id)

    async def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **given: Any) -> None:
        """What happens below a tool is its own."""
        self._within_tools.add(run_id)
        await super().on_tool_start(serialized, input_str, run_id=run_id, **given)

    async def on_tool_end(self, output: Any, *, run_id: UUID, **given: Any) -> None:
        """It has answered."""
        self._within_tools.discard(run_id)
        await super().on_tool_end(output, run_id=run_id, **given)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It has raised."""
        self._within_tools.discard(run_id)
        await super().on_tool_error(error, run_id=run_id, **given)

    def stage_of(self, metadata: Mapping[str, Any] | None) -> Stage:
        """The node that a run belongs to, or the chain's stage."""
        path = str((metadata or {}).get(PATH, "")).partition("|")[0]
        return self._stages.get(path, self._stage)

    def _is_new(self, message: Any) -> bool:
        """Whether it was never shown; one without an id gets one, as LangGraph's own `messages` mode does."""
        message.id = message.id or str(uuid4())
        is_new = message.id not in self._shown
        self._shown.add(message.id)
        return is_new

    async def _say(self, stage: Stage, text: str) -> None:
        if text:
            self.has_spoken = True
            await self.emit(stage.text(text))

    def _is_within_tool(self, run_id: UUID, parent: UUID | None) -> bool:
        if parent not in self._within_tools:
            return False
        self._within_tools.add(run_id)
        return True

    def _event(self, node: _Node, *, finished: bool) -> Event:
        return protocol.node(
            node.stage.name,
            run=node.stage.run,
            index=node.index,
            count=len(self._names),
            parent=self._stage.name,
            step=node.step,
            finished=finished,
        )


def _messages(state: Any) -> list[Any]:
    """The messages of a node's input or output: the state's, in whatever field."""
    values = state.values() if isinstance(state, Mapping) else [state]
    found = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [item for item in found if isinstance(item, BaseMessage)]
