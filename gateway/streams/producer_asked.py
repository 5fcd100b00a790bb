"""A producer's request to open a stream. It is checked in the same way in process and by HTTP. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway import protocol
from gateway.protocol.errors import Invalid
from gateway.streams.start import MAX_METADATA_BYTES
from gateway.streams.strict_json import check_text, shown
from gateway.webhooks import asked as hooks
from gateway.webhooks.asked import Webhook
from gateway.webhooks.urls import Rules

MOST_STAGES = 100
_FIELDS = ("producer", "chain", "stages", "metadata", "webhook")


@dataclass(frozen=True, slots=True)
class Asked:
    """A stream that a producer will write.

    `chain` is a name that the producer chooses; it need not be registered.
    """

    chain: str
    stages: tuple[str, ...]
    metadata: Any = None
    webhook: Webhook | None = None

    @property
    def digest(self) -> str:
        """SHA-256 in hex of the request. It differs from the digest of any request for a chain.

        A second request with the same Idempotency-Key must have the same digest.
        """
        whole = ["producer", self.chain, self.stages, self.metadata]
        whole += [self.webhook.told()] if self.webhook else []
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def checked(chain: Any, stages: Any = (), metadata: Any = None) -> Asked:
    """Return the checked request. Raises Invalid, which names the field and the rule.

    If `stages` is empty, there is one stage with the name of the chain.
    """
    named = _name("chain", chain)
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise Invalid("stages", "must be a list of names")
    if len(stages) > MOST_STAGES:
        raise Invalid("stages", f"must be at most {MOST_STAGES}")
    names = tuple(_name("stages", stage) for stage in stages) or (named,)
    if len(set(names)) < len(names):
        raise Invalid("stages", "must be names, each once")
    if metadata is not None and not isinstance(metadata, dict):
        raise Invalid("metadata", "must be an object")
    try:
        size = len(
            json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        )
    except (TypeError, ValueError):
        raise Invalid("metadata", "must be JSON") from None
    if metadata is not None and size > MAX_METADATA_BYTES:
        raise Invalid("metadata", f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
    return Asked(named, names, metadata)


def is_producer(value: Any) -> bool:
    """Whether the body of a POST /stream comes from a producer."""
    return isinstance(value, dict) and "producer" in value


def parse(value: dict[str, Any], rules: Rules) -> Asked:
    """Parse the body of a producer's POST /stream. Raises Invalid."""
    for name in value:
        if name not in _FIELDS:
            raise Invalid(shown(name), "is not a field of a producer's request")
    if value["producer"] is not True:
        raise Invalid("producer", "must be true, or left out")
    if "chain" not in value:
        raise Invalid("chain", "must be given")
    asked = checked(value["chain"], value.get("stages", ()), value.get("metadata"))
    return replace(asked, webhook=hooks.parse(value["webhook"], rules)) if "webhook" in value else asked


def _name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Invalid(field, "must be a name that is not empty")
    check_text(field, value)
    try:
        return protocol.name(value)
    except ValueError:
        raise Invalid(field, "may hold no CR, LF or NUL, nor more than 200 characters") from None
