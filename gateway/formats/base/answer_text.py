"""Which text of a stream is its answer: one rule for formats that have no place for other text. No I/O.

The answer is what the chain's last stage says itself, and of a graph in that stage what one node says: the
first that speaks. Another node's text waits until its run ends, and is part of the answer then; so does that
of a node that begins only after a text on the way has become a message of the graph's state. Never part of it
is what its event marks as `aside`: a model's structured output, a hand-over, what is said on the way (by a
node behind which another comes); nor what a run has said that became no message of the state. Where all of
this leaves nothing, the answer is what was said last on the way, else the stage's JSON result, else any last
text.
Invariant: what is told while it streams is never taken back, but by a `reset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.fold import Fold, StageText

ON_THE_WAY = "on_the_way"


def is_of(last: str, stage: StageText) -> bool:
    """Whether this is the chain's last stage, or one of its nodes."""
    return (stage.parent or stage.name) == last


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the answer: its run, unless it is the stage's JSON result; its text, and what that cites."""

    stage: StageText | None
    text: str
    is_refusal: bool = False
    cited: Sequence[Any] = ()


@dataclass(slots=True)
class _Run:
    """What one run of the last stage, or of a node, has said; `born`: where it began to, as an offset."""

    stage: StageText
    born: int
    is_live: bool
    on_the_way: bool
    waiting: list[tuple[str, bool]] = field(default_factory=list)  # that may be the answer's; is it a refusal
    cited: list[Any] = field(default_factory=list)  # likewise
    is_told: bool = False  # some of it is the answer

    def told(self) -> list[Piece]:
        """What was waiting, as the answer's."""
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
    """Takes the events of a stream, in order, and says what of them is the answer."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int, str], _Run] = {}  # in the order of their first texts
        self._voice = ""  # the node that speaks
        self._begun: set[str] = set()  # names of nodes
        self._free: set[str] | None = None  # those that had begun before a text on the way became a message

    def says(self, stage: StageText, aside: str, offset: int) -> bool | None:
        """Whether the next piece of a run of the last stage is the answer's at once; None: it never is.

        False: it waits, and is to be given to `wait`.
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
        """A piece that waits."""
        self._runs[stage.name, stage.run, stage.parent].waiting.append((delta, is_refusal))

    def cites(self, stage: StageText, cited: Sequence[Any]) -> bool:
        """Whether what a run cites is told at once; else it waits with the text, if the run has any."""
        run = self._runs.get((stage.name, stage.run, stage.parent))
        if run is not None and not run.is_live:
            run.cited += cited
        return run is not None and run.is_live

    def staged(self, data: Mapping[str, Any]) -> list[Piece]:
        """A run begins or ends, by its `stage` event: what of it has waited and is the answer's."""
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
        """All that was said after this offset."""
        self._runs = {key: run for key, run in self._runs.items() if run.born <= since}
        if not any(run.is_live and run.stage.parent for run in self._runs.values()):
            self._voice, self._begun, self._free = "", set(), None

    def rest(self, fold: Fold, last: str, result: str) -> list[Piece]:
        """The stream is at its end: what is the answer's now. `result`: the last stage's JSON, or nothing."""
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
        """Whether nothing was said that is the answer, or may be."""
        return not self._runs

    def is_told(self, stage: StageText) -> bool:
        """Whether something of this run is part of the answer."""
        run = self._runs.get((stage.name, stage.run, stage.parent))
        return run is not None and run.is_told
