"""Where a stage's events belong, and what a stage leaves beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway import protocol
from gateway.protocol import Event
from workers.langchain.content import citations_in, refusal_in
from workers.langchain.replays import WITHIN as WITHIN
from workers.langchain.replays import Replays
from workers.langchain.values import plain
from workers.spending import Bill

if TYPE_CHECKING:
    from workers.checkpoints.savers import Memory

Emit = Callable[[Event], Awaitable[None]]


async def no_log() -> bool:
    """Of a stage whose events are kept nowhere."""
    return True


class CheckpointLost(RuntimeError):
    """A graph is to go on, and its checkpointer does not know from where.

    `in_memory`: what it knows it keeps in one process, and that was perhaps another.
    """

    def __init__(self, *, in_memory: bool) -> None:
        super().__init__(
            "an InMemorySaver knows what was asked in its own process alone"
            if in_memory
            else "what the graph goes on from is not in its checkpointer any more"
        )
        self.in_memory = in_memory


class Pace:
    """What a stage's run tells of its time, and asks about it. This one bounds nothing."""

    def node_ended(self) -> None:
        """A node of a graph has ended, at any depth, in any thread: the next one has its own time."""

    def is_over(self) -> bool:
        """Whether this worker's time is up: a graph that can go on elsewhere stops at the end of its step."""
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a graph that has stopped is told.

    `responses` are values by the ids of its questions; `update` changes its state, and `goto` names the nodes
    that come next, each a name, or a mapping of `node` and `input`.
    """

    responses: Mapping[str, Any] = field(default_factory=dict, repr=False)
    update: Mapping[str, Any] | None = field(default=None, repr=False)
    goto: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the events belong: the stage, the deployment that answers; and what bounds them, in bytes."""

    name: str
    deployment: str
    thread: str = ""  # in a graph's own checkpointer
    lasts: bool = False  # its caller has named the thread: later runs go on from it
    memory: Memory | None = field(default=None, repr=False, compare=False)  # of a graph that brings none
    answer: Answer | None = field(default=None, repr=False)  # the graph has stopped, and goes on with this
    # What LangGraph's format has asked for: then the graph's own steps are told, and `input`, where it is
    # there, is what the graph is given, and `checkpoint` where it goes on from.
    graph: Mapping[str, Any] | None = field(default=None, repr=False)
    turn: Any = field(default=None, repr=False)  # what a thread that remembers is given instead of all
    first: str = ""  # of streams that resume one another, the first one's id; empty: it is this one
    doubted: Sequence[Mapping[str, Any]] = ()  # calls of tools about which an earlier stream has asked
    keyed: tuple[str, ...] = ()  # stream and thread that keys of calls are made of, where these are another's
    owner: str = ""  # the caller whose stream this is, as the chain is told
    stream_id: str = ""  # likewise
    attempt: int = 1  # likewise
    metadata: Mapping[str, Any] | None = None  # likewise; what the client has sent with its request
    claims: Mapping[str, Any] | None = None  # likewise; what the sign-in says of the caller
    run: int = 0  # of a graph's node
    hands_on: bool = False  # another stage, or run of this one, is given its result
    max_event: int = 1024 * 1024
    max_log: int = 64 * 1024 * 1024
    aside: str = ""  # why its text is no part of the answer, as far as is known while it is said
    marks: Mapping[str, Any] = field(default_factory=dict)  # what its events bear beside
    pace: Pace = field(default_factory=Pace, repr=False, compare=False)
    # Waits until all events that were handed on stand in the log; False where this attempt may write no more.
    stands: Callable[[], Awaitable[bool]] = field(default=no_log, repr=False, compare=False)
    replays: Replays = field(default_factory=Replays, repr=False, compare=False)  # of earlier attempts
    bill: Bill = field(default_factory=Bill, repr=False, compare=False)

    @property
    def node(self) -> str:
        """A graph's node with its run, as a bill names it; empty for the chain's stage itself."""
        return f"{self.name} {self.run}" if self.run else ""

    def text(self, delta: str) -> Event:
        """A piece of text of this stage; below a tool, of that tool."""
        if WITHIN in self.marks:
            return self._nested("delta", delta)
        event = protocol.text(delta, deployment=self.deployment, stage=self.name, run=self.run)
        return self._aside(event) if self.aside or self.marks else event

    def reasoning(self, delta: str) -> Event:
        """A piece of what a model says of its reasoning; below a tool, of that tool."""
        if WITHIN in self.marks:
            return self._nested("reasoning", delta)
        return self.custom("reasoning", {"delta": delta})

    def refusal(self, delta: str) -> Event:
        """A piece of a refusal's words; below a tool, of that tool."""
        if WITHIN in self.marks:
            return self._nested("delta", delta)
        return self._aside(protocol.refusal(delta, stage=self.name, run=self.run))

    def citations(self, found: Sequence[Any]) -> Event:
        """What a model cites for what it has said."""
        return self._marked(protocol.citations(found, stage=self.name, run=self.run))

    def custom(self, name: str, data: Any) -> Event:
        """Something named, of this stage."""
        return self._marked(protocol.custom(name, data, stage=self.name, run=self.run))

    def tool(self, name: str, call_id: str, state: str, said: Any) -> Event:
        """A tool call of this stage begins or ends."""
        return self._marked(
            protocol.tool(name, call_id=call_id, stage=self.name, state=state, said=said, run=self.run)
        )

    def beside(self, message: Any) -> Iterator[Event]:
        """What a message, or a piece of one, bears after its text."""
        if delta := refusal_in(message):
            yield self.refusal(delta)
        if found := citations_in(message):
            yield self.citations(plain(found))

    def _nested(self, kind: str, delta: str) -> Event:
        within = self.marks[WITHIN]
        return self._marked(protocol.nested(kind, delta, within=within, stage=self.name, run=self.run))

    def _aside(self, event: Event) -> Event:
        if self.aside:
            event.data["aside"] = self.aside
        return self._marked(event)

    def _marked(self, event: Event) -> Event:
        if self.marks:
            event.data |= self.marks
        return event


@dataclass(slots=True)
class Outcome:
    """What a stage leaves beside its events; complete when its stream is at its end."""

    finish_reason: str = "stop"
    usage: dict[str, int] = field(default_factory=dict)
    interrupts: list[Any] = field(default_factory=list)  # what a graph asks, where it has stopped to ask
    upcoming: list[str] = field(default_factory=list)  # nodes before which a graph has stopped
    can_go_on: bool = False  # a graph that has stopped is stored, and can be answered
    is_left: bool = False  # a graph has stopped at the end of a step, for another worker to go on
    result: Any = ""  # the stage's text, or the JSON value that it yields instead
