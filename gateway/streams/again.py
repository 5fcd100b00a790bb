"""What a stream that tries a failed one again takes from it. A value; no I/O."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import sse
from gateway.store.record import CHECKPOINT


@dataclass(frozen=True, slots=True)
class Again:
    """The failed stream `retries`, tried again from the stage `stage` on."""

    retries: str
    stage: str
    wanted: Any = None  # what the client has asked for, as it has written it
    kept: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # results, JSON, by stage and run
    lost: Mapping[str, int] = field(default_factory=dict)  # usage of which nothing is kept
    own: Mapping[str, Any] = field(default_factory=dict, repr=False)  # other fields of the record

    @property
    def fields(self) -> dict[str, Any]:
        """What the new stream's record has of it."""
        told = {"retries": self.retries, "from": self.stage, "kept": sse.dumps(list(self.kept))}
        told["paid"] = sse.dumps({"usage": _usage_of(self.kept.values()), "lost": self.lost})
        told |= {"lost": sse.dumps(self.lost)} if self.lost else {}
        return {**self.own, **told} | {CHECKPOINT + name: raw for name, raw in self.kept.items()}


def _usage_of(results: Iterable[bytes]) -> dict[str, int]:
    """What these runs of stages have used, in all."""
    whole: Counter[str] = Counter()
    for raw in results:
        whole.update(json.loads(raw).get("usage", {}))
    return dict(whole)
