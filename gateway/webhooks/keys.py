"""The Redis keys of webhooks. They are in the bucket of the stream that the webhook reports. No I/O."""

from __future__ import annotations

from collections.abc import Iterable


def webhook_key(name: str) -> str:
    """Return the key of a webhook. Its name is the id of its stream, an underscore and the event."""
    tag = "{" + name[:2] + "}"
    return f"{tag}:webhook:{name}"


def webhook_sets(stream_id: str) -> tuple[str, str]:
    """Return two keys of the stream's bucket: webhooks to send, and webhooks that were given up."""
    tag = "{" + stream_id[:2] + "}"
    return f"{tag}:outbox", f"{tag}:undelivered"


def webhooks_dropped(stream_id: str, events: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the commands that delete all webhooks of a stream."""
    names = [f"{stream_id}_{event}" for event in events]
    unnaming = [("ZREM", key, *names) for key in webhook_sets(stream_id)]
    return [*unnaming, ("UNLINK", *map(webhook_key, names))]
