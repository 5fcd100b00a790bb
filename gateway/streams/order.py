"""What a caller has ordered: a stream to start, and all that is known of the request beside its body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import idempotency_hash
from gateway.streams.start import Start


@dataclass(frozen=True, slots=True)
class Order:
    """A stream to start."""

    start: Start
    owner: str
    key: str = ""  # the Idempotency-Key; empty: none
    traceparent: str = ""  # the trace that the stream belongs to; empty: none
    followed: bool = False  # the caller reads the events in the answer to this request
    claims: Mapping[str, Any] = field(
        default_factory=dict, repr=False
    )  # what the chain is told of the caller

    @property
    def key_hash(self) -> str:
        """By what the key is known in the store, which is different for each owner. Empty without a key."""
        return idempotency_hash(self.owner, self.key) if self.key else ""
