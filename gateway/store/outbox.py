"""The outbox: webhooks to send, the limits on their number, and the results of the tries.

The script that ends a stream puts its webhook into the outbox of the stream's bucket, in the same step as the
terminal event. So no crash loses a webhook. A sender claims a webhook with a lease. The name of a webhook is
the stream's id, an underscore and the event. Every key expires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import OverQuota
from gateway.redis.commands import Commands
from gateway.redis.script import Script
from gateway.settings import Settings
from gateway.store.due import BUCKETS, clock_ms, due
from gateway.store.log import CREATED_EXPIRY_MS, Log
from gateway.webhooks.asked import EVENTS
from gateway.webhooks.keys import webhook_key, webhook_sets

# How many of an owner's webhooks one start checks; the larger number applies if the owner seems to have too
# many.
LOOKS, MOST_LOOKS = 16, 256
RETRY_SECONDS = 60
_TOLD = "told:"  # prefix of fields that the entry copies from the record
_UNENDED = (b"queued", b"running")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A webhook to send. `body` is empty until the body is first written. `questions` is JSON."""

    name: str
    stream_id: str
    event: str
    owner: str
    url: str = field(repr=False)
    at_ms: int
    tries: int
    claims: int  # how often it was claimed since the last completed try
    due_ms: int
    outcome: str
    dead: bool
    held: bool  # a sender has claimed it
    questions: bytes = field(default=b"", repr=False)
    body: bytes = field(default=b"", repr=False)
    told: Mapping[str, bytes] = field(
        default_factory=dict, repr=False
    )  # `told`: fields of the record, for a stream that must not be stored

    @property
    def webhook_id(self) -> str:
        """The id in the webhook's header. It is the same for each try."""
        return f"msg_{self.name}"

    @classmethod
    def of(cls, name: str, flat: Sequence[bytes]) -> Outgoing:
        """Read the fields of the Redis hash."""
        raw = {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}

        def text(field: str) -> str:
            return raw.get(field, b"").decode()

        stream_id, _, event = name.rpartition("_")
        return cls(
            name=name,
            stream_id=stream_id,
            event=event,
            owner=text("owner"),
            url=text("url"),
            at_ms=int(raw.get("at_ms", 0)),
            tries=int(raw.get("tries", 0)),
            claims=int(raw.get("claims", 0)),
            due_ms=int(raw.get("due_ms", 0)),
            outcome=text("outcome"),
            dead="dead" in raw,
            held="token" in raw,
            questions=raw.get("questions", b""),
            body=raw.get("body", b""),
            told={name.removeprefix(_TOLD): raw[name] for name in raw if name.startswith(_TOLD)},
        )


class Outbox:
    """All webhooks to send. The only state is the connection. The methods raise StoreUnavailable."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self._redis = redis
        self._most_of_owner = settings.max_owner_webhooks
        self._most_of_bucket = -(-settings.max_webhooks // BUCKETS)
        self._keep_ms = settings.webhook_kept_ms
        self._index_ms = round(settings.open_seconds * 1000) + self._keep_ms
        names = ("take_webhook", "fill_webhook", "settle_webhook", "redrive_webhook")
        self._scripts = {name: Script(name, beginning="outbox") for name in names}

    @staticmethod
    def keys(name: str) -> list[str]:
        """Return the keys of a webhook: entry, outbox, undelivered, and the job and log of its stream."""
        stream_id = name.rpartition("_")[0]
        return [webhook_key(name), *webhook_sets(stream_id), *Log.keys(stream_id)[:2]]

    @staticmethod
    def index(owner: str) -> str:
        """Return the key of the index of an owner's streams with webhooks.

        It is ordered by the time of the last check.
        """
        tag = hashlib.sha256(owner.encode()).hexdigest()[:32]
        return f"{{{tag}}}:webhooks"

    async def admit(self, owner: str, stream_id: str) -> None:
        """Admit a stream that has a webhook, before the stream is created. Raises OverQuota.

        An owner's webhooks are those of streams that have not ended, and all that are not delivered,
        including those that were given up. If callers are not identified, only the total number of webhooks
        is limited.
        """
        outbox, _ = webhook_sets(stream_id)
        if await self._redis.call("ZCARD", outbox) >= self._most_of_bucket:
            raise OverQuota("too many webhooks wait to be delivered here", RETRY_SECONDS)
        if owner == ANONYMOUS:
            return
        index = self.index(owner)
        count = await self._look(index, LOOKS)
        if count >= self._most_of_owner:
            count = await self._look(index, MOST_LOOKS)
        if count >= self._most_of_owner:
            raise OverQuota(
                f"a caller may have {self._most_of_owner} webhooks that are not delivered", RETRY_SECONDS
            )
        await self.note(owner, stream_id)

    async def note(self, owner: str, stream_id: str) -> None:
        """Count the webhook of a stream, even above the limit."""
        index = self.index(owner)
        if owner != ANONYMOUS:
            now_ms = await clock_ms(self._redis, index)
            await self._redis.call_all(
                [("ZADD", index, now_ms, stream_id), ("PEXPIRE", index, self._index_ms)]
            )

    async def of_owner(self, owner: str) -> list[str]:
        """Return the ids of an owner's streams that may have a webhook.

        The limit on webhooks limits this list.
        """
        return [one.decode() for one in await self._redis.call("ZRANGE", self.index(owner), 0, -1)]

    async def forget(self, owner: str, stream_id: str = "") -> None:
        """Stop counting deleted webhooks.

        They are the webhooks of one stream, or all of the owner if `stream_id` is empty.
        """
        index = self.index(owner)
        await self._redis.call(*(("ZREM", index, stream_id) if stream_id else ("UNLINK", index)))

    async def due(self, most: int, *, all_of_them: bool = False) -> list[str]:
        """Return the names of due webhooks, up to `most` of each bucket.

        Webhooks of nodes that cannot be reached are left out.
        """
        return await due(self._redis, "outbox", most, all_of_them=all_of_them)

    async def listed(self, most: int) -> list[Outgoing]:
        """Return webhooks to send and webhooks that were given up, up to `most` of each bucket and kind."""
        names = [
            *(await due(self._redis, "outbox", most, all_of_them=True)),
            *(await due(self._redis, "undelivered", most, all_of_them=True)),
        ]
        found: list[Outgoing] = []
        for first in range(0, len(names), MOST_LOOKS):
            some = names[first : first + MOST_LOOKS]
            raw = await self._redis.call_all([("HGETALL", self.keys(name)[0]) for name in some])
            found += [Outgoing.of(name, flat) for name, flat in zip(some, raw, strict=True) if flat]
        return found

    async def take(self, name: str, token: str, lease_ms: int) -> Outgoing | None:
        """Claim a webhook that is due and not claimed; otherwise return None.

        A second call with the same token renews the lease.
        """
        raw = await self._scripts["take_webhook"](self._redis, self.keys(name), name, token, lease_ms)
        return Outgoing.of(name, raw[1:]) if raw[0] == "taken" else None

    async def fill(self, name: str, token: str, body: bytes) -> bytes | None:
        """Store the body before the first try.

        Return the body that was stored first; None if the claim is lost.
        """
        raw = await self._scripts["fill_webhook"](self._redis, self.keys(name), name, token, body)
        return raw[1] if raw[0] == "filled" else None

    async def settle(self, name: str, token: str, word: str, outcome: str = "", pause_ms: int = 0) -> str:
        """Store the result of a try: `sent`, `again`, `back` (nothing was tried) or `dead`.

        Return `settled`, `fenced` or `unknown`.
        """
        args = (name, token, word, outcome, pause_ms, self._keep_ms, self._most_of_bucket)
        return str((await self._scripts["settle_webhook"](self._redis, self.keys(name), *args))[0])

    async def redrive(self, name: str) -> bool:
        """Make the webhook due now.

        Its earlier tries stay counted. Return False if no webhook has this name.
        """
        raw = await self._scripts["redrive_webhook"](self._redis, self.keys(name), name, self._keep_ms)
        return bool(raw[0] == "due")

    async def _look(self, index: str, most: int) -> int:
        """Check the streams whose last check is the oldest.

        Return how many streams the index has after that.
        """
        raw = await self._redis.call("ZRANGE", index, 0, most - 1, "WITHSCORES")
        ids, scores = [one.decode() for one in raw[::2]], [float(one) for one in raw[1::2]]
        if ids:
            states = await self._redis.call_all([one for stream_id in ids for one in _state_of(stream_id)])
            now_ms = await clock_ms(self._redis, index)
            gone, left = [], []
            for one, score, told, status in zip(ids, scores, states[::2], states[1::2], strict=True):
                if told or status in _UNENDED:
                    left += [now_ms, one]
                # else the stream is being created
                elif status or not now_ms - CREATED_EXPIRY_MS < score <= now_ms:
                    gone.append(one)
            changes = [("ZREM", index, *gone)] if gone else []
            changes += [("ZADD", index, "XX", *left)] if left else []
            await self._redis.call_all(changes)
        return int(await self._redis.call("ZCARD", index))


def _state_of(stream_id: str) -> list[tuple[Any, ...]]:
    entries = [webhook_key(f"{stream_id}_{event}") for event in EVENTS]
    return [("EXISTS", *entries), ("HGET", Log.keys(stream_id)[0], "status")]
