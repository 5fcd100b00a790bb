"""The messages that a run has made so far, as AG-UI has them: what a snapshot of them holds. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.fold import StageText


@dataclass(slots=True)
class _Row:
    """A message. `born`: where its first event stands in the log; `text` grows."""

    born: int
    message: dict[str, Any]
    text: StageText | None = None  # its pieces, joined as they grow
    calls: list[dict[str, Any]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        more = {"content": self.text.text} if self.text is not None else {}
        return {**self.message, **more, **({"toolCalls": list(self.calls)} if self.calls else {})}


class Said:
    """In the order in which they began."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def begin(self, born: int, message_id: str, role: str, **more: Any) -> None:
        """A message, of which no text is here yet."""
        text = StageText(role, 1, message_id) if "content" not in more else None
        self._rows[message_id] = _Row(born, {"id": message_id, "role": role, **more}, text)

    def add(self, message_id: str, delta: str) -> None:
        """A piece of its text."""
        if (row := self._rows.get(message_id)) is not None and row.text is not None:
            row.text.add(delta)

    def call(self, message_id: str, call: dict[str, Any]) -> None:
        """A call that this message makes."""
        self._rows[message_id].calls.append(call)

    def void(self, since: int) -> None:
        """Those that began after this offset have not begun."""
        self._rows = {name: row for name, row in self._rows.items() if row.born <= since}

    def told(self) -> list[dict[str, Any]]:
        """All that stand."""
        return [row.told() for row in self._rows.values()]
