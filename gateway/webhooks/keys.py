"""Where webhooks stand in Redis: beside the stream that they tell of, in its bucket. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable


def webhook_key(name: str) -> str:
    """The key of a webhook, whose name is its stream's id, an underscore and the event."""
    tag = "{" + name[:2] + "}"
    return f"{tag}:webhook:{name}"


def webhook_sets(stream_id: str) -> tuple[str, str]:
    """Of a stream's bucket: the webhooks that are to be sent, and those that were given up."""
    tag = "{" + stream_id[:2] + "}"
    return f"{tag}:outbox", f"{tag}:undelivered"


def webhooks_dropped(stream_id: str, events: Iterable[str]) -> list[tuple[str, ...]]:
    """The commands that delete all webhooks of a stream."""
    names = [f"{stream_id}_{event}" for event in events]
    unnaming = [("ZREM", key, *names) for key in webhook_sets(stream_id)]
    return [*unnaming, ("UNLINK", *map(webhook_key, names))]
