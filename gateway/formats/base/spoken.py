"""A stream's answer, piece by piece, for a format that has a place for nothing else. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.answer_text import Answer, Piece, is_of
from gateway.formats.base.projection import Frame, Projection
from gateway.protocol import Cursor, sse
from gateway.protocol.fold import StageText


def result_of(last: str, data: Any) -> str:
    """A custom event's JSON, if it is the last stage's result: that takes the place of a text."""
    is_result = data["name"] == "result" and data["stage"] == last
    return sse.dumps(data["data"]).decode(errors="replace") if is_result else ""


@dataclass
class Spoken(Projection):
    """What the answer is, piece by piece: `said` makes frames of each.

    `void`: ids of text events that are known to be void.
    """

    void: frozenset[str] = frozenset()
    _answer: Answer = field(default_factory=Answer, init=False)
    _result: str = field(default="", init=False)  # of a last stage that has no text

    def said(self, told: Piece) -> Iterable[Frame]:
        """A piece of the answer, of what it cites, or of a refusal."""
        return ()

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """A piece of any text that is not known to be void."""
        return self._take(stage, delta, is_refusal=False)

    def refusal(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Likewise, of the words by which a model refuses."""
        return self._take(stage, delta, is_refusal=True)

    def citations(self, data: Any) -> Iterable[Frame]:
        """What the answer cites."""
        stage = self.stage_of(data)
        if stage is None or not is_of(self.last, stage) or self.cursor in self.void:
            return
        if self._answer.cites(stage, data["citations"]):
            yield from self.said(Piece(stage, "", cited=data["citations"]))

    def custom(self, data: Any) -> Iterable[Frame]:
        """The last stage's result, where that is JSON instead of text."""
        self._result = result_of(self.last, data) or self._result
        return ()

    def stage(self, data: Any) -> Iterable[Frame]:
        """At the end of a run its text may turn out to be the answer's."""
        for told in self._answer.staged(data):
            yield from self.said(told)

    def reset(self, data: Any) -> Iterable[Frame]:
        """All after the stage's beginning is void: stages follow one another."""
        self._answer.void(Cursor.parse(data["discard_after"]).offset)
        return ()

    def done(self, data: Any) -> Iterable[Frame]:
        """What is left of the answer."""
        for told in self._answer.rest(self.fold, self.last, self._result):
            yield from self.said(told)

    def _take(self, stage: StageText, delta: str, *, is_refusal: bool) -> Iterable[Frame]:
        if not is_of(self.last, stage) or self.cursor in self.void:
            return
        says = self._answer.says(stage, self.aside, Cursor.parse(self.cursor).offset)
        if says:
            yield from self.said(Piece(stage, delta, is_refusal))
        elif says is False:
            self._answer.wait(stage, delta, is_refusal=is_refusal)
