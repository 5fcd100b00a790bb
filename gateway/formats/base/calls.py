"""Tool calls without an answer: at the end of a stream the client must run them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.protocol import sse

CALLS = "tool_calls"  # the finish reason of a stream that ends with calls for the client


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call without an answer. `offset`: of its event in the log. `stage`, `run`: the event's fields."""

    offset: int
    call_id: str
    name: str
    stage: str
    run: int | None
    input: Any

    @property
    def arguments(self) -> str:
        """The call's arguments as the JSON text of an object."""
        return sse.dumps(self.input if isinstance(self.input, dict) else {"input": self.input}).decode()


class Calls:
    """The calls of one stream that have begun and have no answer yet, in order."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int | None, str], Unanswered] = {}

    def take(self, offset: int, data: Mapping[str, Any]) -> None:
        """Process the next `tool` event. A model may use a call's id again; then the newer call counts."""
        key = data["stage"], data.get("run"), data["call_id"]
        self._open.pop(key, None)
        if data["state"] == "started":
            call_id, name = str(data["call_id"]), str(data["name"])
            self._open[key] = Unanswered(offset, call_id, name, key[0], key[1], data.get("input"))

    def void(self, since: int) -> None:
        """Forget the calls that began after this offset: they are void."""
        self._open = {key: call for key, call in self._open.items() if call.offset <= since}

    def for_client(self, last: str, reason: Any) -> list[Unanswered]:
        """Return the calls that the client must run.

        `last` is the name of the stream's last stage, and `reason` the stream's finish reason.
        """
        if reason != CALLS:
            return []
        return [call for call in self._open.values() if call.stage == last and call.run is None]
