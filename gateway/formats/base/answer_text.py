"""Decides which text of a stream is its answer, for formats that cannot carry any other text. No I/O.

The answer is the text of the chain's last stage. If this stage is a graph, the answer is the text of one
node: the first node that writes text. The text of another node waits until the node's run ends, and then it
becomes part of the answer. The same is true for a node that begins only after a text on the way has become a
message of the graph's state. Text is "on the way" if its node is followed by another node.

Text that its event marks as `aside` is not part of the answer: a model's structured output, a hand-over, or
text on the way. Text of a run that did not become a message of the state is not part of the answer either.

If these rules leave no text, the answer is the last text on the way. If there is none, the answer is the
stage's JSON result. If there is none, the answer is the last text of any kind.

Invariant: text that was sent as part of the answer during streaming is only taken back by a `reset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.fold import Fold, StageText

ON_THE_WAY = "on_the_way"


def is_of(last: str, stage: StageText) -> bool:
    """Return whether this is the chain's last stage, or a node in it; `last` is the last stage's name."""
    return (stage.parent or stage.name) == last


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the answer: the run that wrote it, its text, and the citations in it.

    `stage` is None if the part is the last stage's JSON result.
    """

    stage: StageText | None
    text: str
    is_refusal: bool = False
    cited: Sequence[Any] = ()


@dataclass(slots=True)
class _Run:
    """The text of one run of the last stage or of a node. `born` is the offset at which the text began."""

    stage: StageText
    born: int
    is_live: bool
    on_the_way: bool
    # Pieces of text that may become part of the answer, each with whether it is a refusal.
    waiting: list[tuple[str, bool]] = field(default_factory=list)
    cited: list[Any] = field(default_factory=list)  # citations that wait with this text
    is_told: bool = False  # some of the run's text is part of the answer

    def told(self) -> list[Piece]:
        """Make the waiting text and citations part of the answer, and return them."""
        said = [
            Piece(self.stage, "".join(text for text, is_one in self.waiting if is_one is kind), kind)
            for kind in (False, True)
        ]
        said.append(Piece(self.stage, "", cited=tuple(self.cited)))
        self.waiting.clear()
        self.cited.clear()
        self.is_told = True
        return [one for one in said if one.text or one.cited]


class Answer:
    """Gets the events of a stream, in order, and decides which text is the answer."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int, str], _Run] = {}  # in the order of their first text
        self._voice = ""  # the node whose text is the answer
        self._begun: set[str] = set()  # names of the nodes that have begun
        # The nodes that had begun before a text on the way became a message; None: no text has become one.
        self._free: set[str] | None = None

    def says(self, stage: StageText, aside: str, offset: int) -> bool | None:
        """Return whether the next piece of text is part of the answer. It is of a run of the last stage.

        True: the piece is part of the answer at once. False: the piece waits, so the caller passes it to
        `wait`. None: the piece is never part of the answer.
        """
        if aside not in ("", ON_THE_WAY):
            return None
        key = stage.name, stage.run, stage.parent
        run = self._runs.get(key)
        if run is None:
            is_live = not aside and (not stage.parent or self._may_speak(stage.name))
            run = self._runs[key] = _Run(stage, offset, is_live, bool(aside))
            if is_live and stage.parent:
                self._voice = stage.name
        run.is_told = run.is_told or run.is_live
        return run.is_live

    def wait(self, stage: StageText, delta: str, *, is_refusal: bool = False) -> None:
        """Store a piece of text that waits."""
        self._runs[stage.name, stage.run, stage.parent].waiting.append((delta, is_refusal))

    def cites(self, stage: StageText, cited: Sequence[Any]) -> bool:
        """Return whether a run's citations are sent at once.

        If not, they are stored and wait with the run's text, if the run has text.
        """
        run = self._runs.get((stage.name, stage.run, stage.parent))
        if run is not None and not run.is_live:
            run.cited += cited
        return run is not None and run.is_live

    def staged(self, data: Mapping[str, Any]) -> list[Piece]:
        """Process the `stage` event of a run's start or end.

        Return waiting text that is now part of the answer.
        """
        key = data["name"], data["run"], data.get("parent", "")
        if data["state"] == "started":
            self._begun.add(data["name"])
            return []
        run = self._runs.get(key)
        if run is not None and run.on_the_way and data.get("aside") is False and self._free is None:
            self._free = set(self._begun)
        if run is None or run.is_live:
            return []
        if data.get("aside"):
            del self._runs[key]
            return []
        return [] if run.on_the_way else run.told()

    def void(self, since: int) -> None:
        """Forget the text of all runs that began after this offset: it is void."""
        self._runs = {key: run for key, run in self._runs.items() if run.born <= since}
        if not any(run.is_live and run.stage.parent for run in self._runs.values()):
            self._voice, self._begun, self._free = "", set(), None

    def rest(self, fold: Fold, last: str, result: str) -> list[Piece]:
        """Return the rest of the answer at the stream's end.

        `result` is the last stage's JSON result, or empty.
        """
        told = [
            one for run in self._runs.values() if run.waiting and not run.on_the_way for one in run.told()
        ]
        if any(run.is_told for run in self._runs.values()):
            return told
        for run in reversed(self._runs.values()):
            if run.waiting:
                return run.told()
        if result:
            return [Piece(None, result)]
        spoken = (stage for stage in reversed(fold.stages) if stage.pieces and is_of(last, stage))
        return [Piece(stage, stage.text) for stage in spoken][:1]

    def _may_speak(self, name: str) -> bool:
        return self._voice in ("", name) and (self._free is None or name in self._free)

    @property
    def is_silent(self) -> bool:
        """Whether there is no text that is or may become part of the answer."""
        return not self._runs

    def is_told(self, stage: StageText) -> bool:
        """Return whether some text of this run is part of the answer."""
        run = self._runs.get((stage.name, stage.run, stage.parent))
        return run is not None and run.is_told
