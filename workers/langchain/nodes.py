"""The callback of a graph: it emits the start and end of nodes, and what LangGraph's `messages` mode shows.

This class is a subclass of LangGraph's handler, which decides what is shown and at which path. A node of the
graph itself is a stage. The output of a subgraph's nodes belongs to the node that runs the subgraph. It is
marked with the names of the path. If a run of a node has several messages, each later message has a number.
Output below a tool belongs to the tool.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import local
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage

from gateway import protocol
from gateway.protocol import Event, EventType
from workers.langchain.calls import FedModels
from workers.langchain.content import citations_in, reasoning_of, refusal_in, text_in, text_of
from workers.langchain.inside import Inside
from workers.langchain.pregel import StreamMessagesHandler, written_at
from workers.langchain.stage import WITHIN, Emit, Stage
from workers.langchain.state import MESSAGES, answers
from workers.langchain.steps import Steps
from workers.langchain.values import NOTHING, clean, plain
from workers.langchain.ways import on_the_way

PATH = "langgraph_checkpoint_ns"
# The reasons why a text is not part of the answer (docs/protocol.md, Events).
STRUCTURED_OUTPUT, HAND_OVER, ON_THE_WAY = "structured_output", "hand_over", "on_the_way"


@dataclass(slots=True)
class _Node:
    """One run of a node."""

    stage: Stage
    path: str
    index: int
    step: int


@dataclass(slots=True)
class _Speaker:
    """A message that is being emitted: its stage, and whether a part of it was already emitted."""

    stage: Stage
    has_spoken: bool = False
    number: int = 0  # number of the message, if the graph's steps are published


class _Heard(local):
    """What LangGraph's handler has shown in this thread, and what is not emitted yet."""

    def __init__(self) -> None:
        self.parts: list[Any] = []


class NodeTap(Inside, StreamMessagesHandler):
    """The callback of one graph. `standing` are the events of earlier attempts that stay valid."""

    def __init__(self, emit: Emit, stage: Stage, graph: Any, standing: Sequence[Event]) -> None:
        Inside.__init__(self, emit, stage)
        self._heard = _Heard()
        StreamMessagesHandler.__init__(self, self._heard_one, subgraphs=True)
        self.models: FedModels = FedModels(self._within.__contains__, self._pay)
        self._names = [name for name in graph.nodes if not name.startswith("__")]
        self._on_the_way = frozenset(map(clean, on_the_way(graph)))
        self._keeps_messages = MESSAGES in graph.channels
        self._runs = Counter(
            event.data["name"]
            for event in standing
            if event.type is EventType.STAGE and event.data["state"] == "started"
        )
        self._calls.update(event.data["call_id"] for event in standing if event.type is EventType.TOOL)
        self.told = _texts_of(standing)  # the complete text of each emitted message
        self.has_spoken = bool(standing)
        self.hands_on = stage.hands_on
        self.control: Any = None  # LangGraph's object that stops the graph at the end of a step
        self.is_stopping = False
        self._nodes: dict[UUID, _Node] = {}
        self._stages: dict[str, Stage] = {}  # path of the task -> stage of a running node
        self._failed: dict[str, _Node] = {}  # path of the task -> failed node that may run again
        self._speakers: dict[UUID, _Speaker] = {}
        self._inner_paths: dict[str, str] = {}  # path of a task below a tool -> the tool's call
        # (node, run, tool call) -> emitted messages
        self._messages: Counter[tuple[str, int, str]] = Counter()
        self.steps = None if stage.graph is None else Steps(stage, standing, self.emit_unbound, self._at)

    def _heard_one(self, part: Any) -> None:
        self._heard.parts.append(part)

    @property
    def ignore_llm(self) -> bool:
        """The pieces of a model's answer are needed: they are its node's text."""
        return False

    @property
    def ignore_chat_model(self) -> bool:
        """The calls of chat models are needed: their answers are their node's text."""
        return False

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
        """Begin a node, if this run is one."""
        call_id = self._descend(run_id, parent_run_id)
        if not metadata or PATH not in metadata:
            return
        self.keys.begin(run_id, metadata)
        StreamMessagesHandler.on_chain_start(
            self, serialized, inputs, run_id=run_id, tags=tags, metadata=metadata, **given
        )
        path = metadata[PATH]
        if call_id:
            self._inner_paths[path] = call_id
        elif run_id in self.metadata and "|" not in path and path not in self._stages:
            await self._begin(run_id, path, metadata)

    async def _begin(self, run_id: UUID, path: str, metadata: Mapping[str, Any]) -> None:
        """Emit the start of a node. A node that LangGraph runs again keeps its run number."""
        if (node := self._failed.pop(path, None)) is None:
            name = metadata["langgraph_node"]
            self._runs[name] += 1
            stage = replace(self._stage, name=clean(name), run=self._runs[name])
            index = self._names.index(name) if name in self._names else 0
            node = _Node(stage, path, index, metadata.get("langgraph_step", 0))
            await self.emit(self._event(node, finished=False))
        self._nodes[run_id] = node
        self._stages[path] = node.stage

    async def on_chain_end(  # type: ignore[override]  # LangChain and LangGraph name `outputs` otherwise
        self, outputs: Any, *, run_id: UUID, **given: Any
    ) -> None:
        """End a node, if this run is one. Messages that it made without a model are emitted as its text."""
        call_id = self._within.pop(run_id, "")
        self.keys.end(run_id)
        if run_id in self.metadata:
            StreamMessagesHandler.on_chain_end(self, outputs, run_id=run_id)
            parts, self._heard.parts = self._heard.parts, []
            for path, _, (message, metadata) in parts:
                why = HAND_OVER if isinstance(message, AIMessage) and message.tool_calls else ""
                speaker = _Speaker(self._beside(self._place(metadata, call_id), why))
                self._end_message(speaker, message, path, metadata)
                if isinstance(message, AIMessage):
                    await self._say(speaker, message)
                    if not call_id:
                        self.told.add(text_of(message))
            self._stage.pace.node_ended()
        await self._finish(run_id, outputs)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """End a node that hands over to the graph around it.

        Keep any other failed node, as it may run again.
        """
        self._within.pop(run_id, None)
        self.metadata.pop(run_id, None)
        self.keys.end(run_id)
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "ParentCommand" in kinds:
            await self._finish(run_id)
        elif node := self._nodes.pop(run_id, None):
            self._stages.pop(node.path, None)
            if "GraphBubbleUp" not in kinds:  # a node that stops to ask has not failed
                self._failed[node.path] = node

    async def _finish(self, run_id: UUID, outputs: Any = NOTHING) -> None:
        if node := self._nodes.pop(run_id, None):
            await self.emit(self._event(node, finished=True, aside=self._is_aside(node, outputs)))
            self._stages.pop(node.path, None)
            if self.control is not None and self._stage.pace.is_over():
                # The step ends with this node or with its parallel nodes. So the graph has made progress.
                self.is_stopping = True
                self.control.request_drain()

    def _is_aside(self, node: _Node, outputs: Any) -> bool | None:
        """Return whether a node's output became no message of the state. None: it makes no difference."""
        has_spoken = (node.stage.name, node.stage.run, "") in self._messages
        if not has_spoken or not self._keeps_messages or outputs is NOTHING:
            return None
        return not answers(outputs) or (False if node.stage.name in self._on_the_way else None)

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
        """Begin a call of a chat model."""
        # called by async code, which receives exceptions from here
        if asyncio.get_running_loop() is self._loop:
            self.models.feed(run_id)
        call_id = self._descend(run_id, parent_run_id)
        if metadata and PATH in metadata:
            StreamMessagesHandler.on_chat_model_start(
                self, serialized, messages, run_id=run_id, tags=tags, metadata=metadata
            )
        if run_id in self.metadata:
            is_structured = bool((given.get("options") or {}).get("ls_structured_output_format"))
            why = STRUCTURED_OUTPUT if is_structured else ""
            self._speakers[run_id] = _Speaker(self._beside(self._place(metadata, call_id), why))

    async def on_llm_start(
        self,
        serialized: Any,
        prompts: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **given: Any,
    ) -> None:
        """Begin a call of a text model. LangGraph's own mode does not show such a model."""
        self.models.on_llm_start(serialized, prompts, run_id=run_id, parent_run_id=parent_run_id, **given)
        self._descend(run_id, parent_run_id)

    async def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **given: Any) -> None:
        """Emit a piece of a model's answer."""
        self.models.take(run_id, chunk)
        if (speaker := self._speakers.get(run_id)) is None:
            return
        StreamMessagesHandler.on_llm_new_token(self, token, chunk=chunk, run_id=run_id)
        if self._heard.parts:
            self._heard.parts.clear()
            if self.steps is not None and not speaker.number:
                speaker.number = self.steps.begin(chunk.message, speaker.stage, *self.metadata[run_id])
            await self._say(speaker, chunk.message)

    async def on_llm_end(self, response: Any, *, run_id: UUID, **given: Any) -> None:
        """End a call. If the answer was not streamed, emit it whole. Raises CutOff and BrokenCall."""
        self.models.fed_end(response, run_id)
        self._within.pop(run_id, None)
        speaker = self._speakers.pop(run_id, None)
        if run_id not in self.metadata or speaker is None:
            return
        place = self.metadata[run_id]
        StreamMessagesHandler.on_llm_end(self, response, run_id=run_id)
        parts, self._heard.parts = self._heard.parts, []
        for generation in (response.generations or [[]])[0][:1]:
            if message := getattr(generation, "message", None):
                self._end_message(speaker, message, *place)
        for _, _, (message, _) in parts:
            await self._say(speaker, message)
        for generation in (response.generations or [[]])[0][:1]:
            if WITHIN not in speaker.stage.marks and (message := getattr(generation, "message", None)):
                self.told.add(text_of(message))

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """End a call that has failed."""
        self.models.fed_error(error, run_id)
        self._within.pop(run_id, None)
        self._speakers.pop(run_id, None)
        self.metadata.pop(run_id, None)

    def write(self, data: Any) -> None:
        """Emit what a node, or a tool, writes to LangGraph's `StreamWriter`, at once and in its place.

        Raises the exception of an earlier failure.
        """
        path, run_id = written_at()
        call_id = self._within.get(run_id) or self._inner_paths.get(path, "")
        stage = self._place({PATH: path}, call_id)
        if self.steps is not None and (ns := self.steps.space(path.split("|")[:-1])):
            stage = replace(stage, marks={**stage.marks, "ns": ns})
        self.emit_now(stage.custom("custom", plain(data)))

    def stage_of(self, metadata: Mapping[str, Any] | None) -> Stage:
        """Return the node to which a run belongs, or the chain's stage."""
        return self._place(metadata, "")

    def _place(self, metadata: Mapping[str, Any] | None, call_id: str) -> Stage:
        """Return the node at a path, marked with the names of the path below it and with the tool's call."""
        root, *below = str((metadata or {}).get(PATH, "")).split("|")
        stage = self._stages.get(root) or self._named(root)
        names = [clean(name) for part in below if not (name := part.partition(":")[0]).isdigit()]
        marks = ({"path": names} if names else {}) | ({WITHIN: call_id} if call_id else {})
        return replace(stage, marks=marks) if marks else stage

    def _beside(self, stage: Stage, why: str) -> Stage:
        """Return the stage, marked if its text is known not to be part of the answer."""
        why = why or (ON_THE_WAY if stage.name in self._on_the_way and stage.run else "")
        return replace(stage, aside=why) if why else stage

    def _named(self, root: str) -> Stage:
        """Return the newest run of the node with this name, or the chain's stage.

        This is needed for a subgraph with its own checkpoints, because its path names no task.
        """
        name = clean(root.partition(":")[0])
        running = (stage for stage in reversed(self._stages.values()) if stage.name == name)
        return next(running, self._stage)

    async def _say(self, speaker: _Speaker, message: BaseMessage) -> None:
        """Emit a message of a model or a node, or a piece of one."""
        content = message.content
        if not (is_bare := type(content) is str and not message.additional_kwargs):
            if reasoning := reasoning_of(message):
                await self.emit(self._place_of(speaker).reasoning(reasoning))
            content = text_in(content)
        if content:
            self.has_spoken = True
            await self.emit(self._place_of(speaker).text(content))
        if not is_bare and (refusal_in(message) or citations_in(message)):
            for event in self._place_of(speaker).beside(message):
                await self.emit(event)

    def _end_message(
        self, speaker: _Speaker, message: BaseMessage, path: Sequence[str], metadata: Mapping[str, Any]
    ) -> None:
        """Emit a complete message, if the graph's steps are published."""
        if self.steps is not None and message.id:
            speaker.number = self.steps.end(message, speaker.stage, path, metadata)

    def _at(self, root: str) -> Stage:
        """Return the node at the root of a namespace, or the last begun node of this name."""
        if (stage := self._stages.get(root)) is None and self._runs[root]:
            stage = replace(self._stage, name=clean(root), run=self._runs[root])
        return stage or self._named(root)

    def _place_of(self, speaker: _Speaker) -> Stage:
        """Return the stage of a message. From the second message of a node's run on, it has a number."""
        if not speaker.has_spoken:
            speaker.has_spoken = True
            speaker.stage = self._numbered(speaker.stage)
            if speaker.number:
                marks = {**speaker.stage.marks, "number": speaker.number}
                speaker.stage = replace(speaker.stage, marks=marks)
        return speaker.stage

    def _numbered(self, stage: Stage) -> Stage:
        """Count one more message in this stage, and return the stage with the message's number."""
        key = (stage.name, stage.run, str(stage.marks.get(WITHIN, "")))
        self._messages[key] += 1
        number = self._messages[key]
        return replace(stage, marks={**stage.marks, "message": number}) if number > 1 else stage

    def _event(self, node: _Node, *, finished: bool, aside: bool | None = None) -> Event:
        return protocol.node(
            node.stage.name,
            run=node.stage.run,
            index=node.index,
            count=len(self._names),
            parent=self._stage.name,
            step=node.step,
            finished=finished,
            aside=aside,
        )


def _texts_of(events: Sequence[Event]) -> set[str]:
    """Return the complete texts of the messages in these events."""
    texts: dict[tuple[Any, ...], list[str]] = {}
    for event in events:
        if event.type is EventType.MESSAGE:
            data = event.data
            key = (data["stage"], data.get("run"), data.get("message"))
            texts.setdefault(key, []).append(data["delta_content"])
    return {"".join(pieces) for pieces in texts.values()}
