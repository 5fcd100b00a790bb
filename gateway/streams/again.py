"""The data that a retry takes from the failed stream. A value; no I/O."""

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
    """A new try of the failed stream `retries`, beginning at the stage `stage`."""

    retries: str
    stage: str
    wanted: Any = None  # the client's request for the retry, as the client wrote it
    # Results of stages that need not run again, as JSON, by stage and run.
    kept: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    lost: Mapping[str, int] = field(default_factory=dict)  # usage whose results are not kept
    # other fields of the new stream's record
    own: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the new stream's record that describe the retry."""
        told = {"retries": self.retries, "from": self.stage, "kept": sse.dumps(list(self.kept))}
        told["paid"] = sse.dumps({"usage": _usage_of(self.kept.values()), "lost": self.lost})
        told |= {"lost": sse.dumps(self.lost)} if self.lost else {}
        return {**self.own, **told} | {CHECKPOINT + name: raw for name, raw in self.kept.items()}


def _usage_of(results: Iterable[bytes]) -> dict[str, int]:
    """Return the usage of these stage runs, added up."""
    whole: Counter[str] = Counter()
    for raw in results:
        whole.update(json.loads(raw).get("usage", {}))
    return dict(whole)
