"""The context of a stage's events, and the outcome of a stage."""

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
    """Return True: the events of this stage are not stored in a log."""
    return True


class CheckpointLost(RuntimeError):
    """A graph must continue, and its checkpointer does not have the state to continue from.

    `in_memory`: the checkpointer stores states only in one process, and that may have been another process.
    """

    def __init__(self, *, in_memory: bool) -> None:
        super().__init__(
            "an InMemorySaver knows what was asked in its own process alone"
            if in_memory
            else "what the graph goes on from is not in its checkpointer any more"
        )
        self.in_memory = in_memory


class Pace:
    """The time limits of a stage's run. This base class has no limits."""

    def node_ended(self) -> None:
        """Start the time limit again for the next node.

        Called when a node ends, at any depth, in any thread.
        """

    def is_over(self) -> bool:
        """Return whether this worker's time is over.

        A graph that can continue elsewhere then stops after its step.
        """
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """The caller's answer to a graph that has stopped.

    `responses` are values by the ids of the graph's questions. `update` changes its state. `goto` names the
    nodes that come next: each is a name, or a mapping of `node` and `input`.
    """

    responses: Mapping[str, Any] = field(default_factory=dict, repr=False)
    update: Mapping[str, Any] | None = field(default=None, repr=False)
    goto: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """The context of a stage's events: their stage, the model's deployment, and limits in bytes."""

    name: str
    deployment: str
    thread: str = ""  # the thread in a graph's own checkpointer
    lasts: bool = False  # True: the caller has named the thread, and later runs continue from it
    # for a graph without its own checkpointer
    memory: Memory | None = field(default=None, repr=False, compare=False)
    answer: Answer | None = field(default=None, repr=False)  # the graph has stopped, and continues with this
    # The request in LangGraph's format, if there is one. Then the graph's own steps are published. `input`,
    # if set, is the graph's input, and `checkpoint` is where it continues.
    graph: Mapping[str, Any] | None = field(default=None, repr=False)
    # The new input alone, for a thread that remembers the earlier ones.
    turn: Any = field(default=None, repr=False)
    first: str = ""  # the first of the streams that resume each other; empty: this one
    doubted: Sequence[Mapping[str, Any]] = ()  # tool calls about which an earlier stream has asked
    # The stream and thread for the keys of calls, if they are those of another stream.
    keyed: tuple[str, ...] = ()
    owner: str = ""  # the caller whose stream this is; the chain sees it
    stream_id: str = ""  # the chain sees it
    attempt: int = 1  # the chain sees it
    metadata: Mapping[str, Any] | None = None  # the chain sees it; what the client has sent with its request
    claims: Mapping[str, Any] | None = None  # the chain sees it; what the sign-in says about the caller
    run: int = 0  # the run of a graph's node
    hands_on: bool = False  # another stage, or another run of this one, gets its result
    max_event: int = 1024 * 1024
    max_log: int = 64 * 1024 * 1024
    aside: str = ""  # why its text is not part of the answer, if this is known while the text is emitted
    marks: Mapping[str, Any] = field(default_factory=dict)  # additional fields of its events
    pace: Pace = field(default_factory=Pace, repr=False, compare=False)
    # Waits until all emitted events are in the log. Returns False if this attempt may write no more.
    stands: Callable[[], Awaitable[bool]] = field(default=no_log, repr=False, compare=False)
    # tool calls of earlier attempts
    replays: Replays = field(default_factory=Replays, repr=False, compare=False)
    bill: Bill = field(default_factory=Bill, repr=False, compare=False)

    @property
    def node(self) -> str:
        """The graph's node and its run, as a bill names them. Empty for the chain's stage itself."""
        return f"{self.name} {self.run}" if self.run else ""

    def text(self, delta: str) -> Event:
        """Return a piece of text of this stage; below a tool, a piece of the tool's text."""
        if WITHIN in self.marks:
            return self._nested("delta", delta)
        event = protocol.text(delta, deployment=self.deployment, stage=self.name, run=self.run)
        return self._aside(event) if self.aside or self.marks else event

    def reasoning(self, delta: str) -> Event:
        """Return a piece of a model's reasoning; below a tool, a piece of the tool's reasoning."""
        if WITHIN in self.marks:
            return self._nested("reasoning", delta)
        return self.custom("reasoning", {"delta": delta})

    def refusal(self, delta: str) -> Event:
        """Return a piece of a refusal; below a tool, a piece of the tool's refusal."""
        if WITHIN in self.marks:
            return self._nested("delta", delta)
        return self._aside(protocol.refusal(delta, stage=self.name, run=self.run))

    def citations(self, found: Sequence[Any]) -> Event:
        """Return the sources that a model cites for its text."""
        return self._marked(protocol.citations(found, stage=self.name, run=self.run))

    def custom(self, name: str, data: Any) -> Event:
        """Return an event of this stage with this name."""
        return self._marked(protocol.custom(name, data, stage=self.name, run=self.run))

    def tool(self, name: str, call_id: str, state: str, said: Any) -> Event:
        """Return the event that a tool call of this stage begins or ends."""
        return self._marked(
            protocol.tool(name, call_id=call_id, stage=self.name, state=state, said=said, run=self.run)
        )

    def beside(self, message: Any) -> Iterator[Event]:
        """Yield what a message, or a piece of one, has in addition to its text: refusal and citations."""
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
    """What a stage returns in addition to its events. It is complete when the stage's stream has ended."""

    finish_reason: str = "stop"
    usage: dict[str, int] = field(default_factory=dict)
    interrupts: list[Any] = field(default_factory=list)  # the questions of a graph that has stopped to ask
    upcoming: list[str] = field(default_factory=list)  # the nodes before which a graph has stopped
    can_go_on: bool = False  # a stopped graph is stored, and can be answered
    is_left: bool = False  # a graph has stopped after a step, and another worker continues it
    result: Any = ""  # the stage's text, or the JSON value that it yields instead
