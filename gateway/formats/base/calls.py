"""Tool calls that nobody here has answered: at the end of a stream they are for the client to run. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.protocol import sse

CALLS = "tool_calls"  # the finish reason of a stream that ends in such calls


@dataclass(frozen=True, slots=True)
class Unanswered:
    """One call. `offset`: where its event stands in the log. `stage`, `run`: as the event has them."""

    offset: int
    call_id: str
    name: str
    stage: str
    run: int | None
    input: Any

    @property
    def arguments(self) -> str:
        """The JSON text of an object."""
        return sse.dumps(self.input if isinstance(self.input, dict) else {"input": self.input}).decode()


class Calls:
    """The calls of one stream that have begun and have no answer, in order."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int | None, str], Unanswered] = {}

    def take(self, offset: int, data: Mapping[str, Any]) -> None:
        """The next `tool` event. Models number their calls anew now and then: the newer one counts."""
        key = data["stage"], data.get("run"), data["call_id"]
        self._open.pop(key, None)
        if data["state"] == "started":
            call_id, name = str(data["call_id"]), str(data["name"])
            self._open[key] = Unanswered(offset, call_id, name, key[0], key[1], data.get("input"))

    def void(self, since: int) -> None:
        """Those that began after this offset have not begun."""
        self._open = {key: call for key, call in self._open.items() if call.offset <= since}

    def for_client(self, last: str, reason: Any) -> list[Unanswered]:
        """What the client is to run, of a stream whose last stage and whose finish reason are these."""
        if reason != CALLS:
            return []
        return [call for call in self._open.values() if call.stage == last and call.run is None]
