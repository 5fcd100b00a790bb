"""The log of a stream in Redis: create, confirm, claim, append, cancel, ask, give up, read.

The log is one Redis string: the exact frames that readers receive. Every change is one script, so the record,
the frames, the index and the publication change together. Each script is idempotent: if the answer was lost,
the same call is made again with the same arguments. All times come from Redis's clock. Every key expires.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.observe import telemetry
from gateway.protocol import VERSION, Cursor, Event, sse
from gateway.protocol.errors import CursorLost
from gateway.redis.commands import Commands
from gateway.redis.script import Script
from gateway.store.appender import Appender, BatchSource, ClaimAppends, append_arguments, tells
from gateway.store.due import due
from gateway.store.journal import Journal
from gateway.store.projector import Projector
from gateway.store.record import (
    Answer,
    Batch,
    Claim,
    Head,
    Look,
    Piece,
    Record,
    ending,
    head_of,
    piece_of,
    started,
)
from gateway.webhooks.asked import EVENTS
from gateway.webhooks.keys import webhooks_dropped

CREATED_EXPIRY_MS = 60_000
SEEN_MS = 86_400_000  # how long Redis remembers the time of the last turn
CLOCK_SPARE_MS = 1000  # a smaller step back of the clock is ignored
PIECE_BYTES = 64 * 1024
EVENT_BYTES = 16 * 1024  # the largest frame that `event` returns
MAX_FRAME_BYTES = 16 * 1024 * 1024
# After these answers of a script, the stream's journal may have a new entry.
_TELLING = frozenset({"ok", "duplicate", "cancelled", "dropped", "over"})


def bucket(stream_id: str) -> str:
    """Return the hash tag that keeps all keys of a stream on one node."""
    return stream_id[:2]


class Log:
    """Access to streams. An instance has no state except the connection and the batches to send."""

    projector: Projector | None = None

    def __init__(self, redis: Commands, projector: Projector | None = None) -> None:
        """`projector` handles new journal entries in this process. None: another process does it later."""
        self._redis = redis
        self.projector = projector
        made = ("create", "confirm", "end_tokens", "claim", "append", "advance")
        more = ("cancel", "ask", "give_up", "look", "resume", "see")
        self._scripts = {name: Script(name) for name in (*made, *more)}
        self._appender = Appender(redis, self._scripts["append"], self._told)

    @property
    def connection(self) -> Commands | None:
        """Return the connection to the Redis that stores the streams; None if no Redis stores them."""
        return self._redis

    @staticmethod
    def keys(stream_id: str) -> list[str]:
        """Return a stream's keys: job, log, and the index of its bucket, which lists streams not ended."""
        tag = "{" + bucket(stream_id) + "}"
        return [f"{tag}:job:{stream_id}", f"{tag}:log:{stream_id}", f"{tag}:open"]

    @staticmethod
    def kept_key(stream_id: str) -> str:
        """Return the key of what a retry of a failed stream needs (`finish` in common.lua writes it)."""
        tag = "{" + bucket(stream_id) + "}"
        return f"{tag}:kept:{stream_id}"

    async def now_ms(self, near: str = "") -> int:
        """Return Redis's clock in ms; in a cluster, of the node with the key `near`, or of any node."""
        beside = [("EXISTS", near)] if near else []
        clock, *_ = await self._redis.call_all([("TIME",), *beside])
        return self._clock(clock)

    async def create(
        self,
        stream_id: str,
        fields: Mapping[str, Any],
        first_frame: bytes,
        *,
        key_hash: str = "",
        body_hash: str = "",
    ) -> tuple[str, str]:
        """Create record and first frame, for 60 s. Return (`created` | `exists` | `conflict`, id)."""
        pairs = [item for pair in fields.items() for item in pair]
        return await self._create(stream_id, key_hash, body_hash, first_frame, *pairs)

    async def known(self, stream_id: str, key_hash: str, body_hash: str) -> tuple[str, str]:
        """Look an idempotency key up, create nothing. Return (`exists` | `conflict` | `none`, id)."""
        return await self._create(stream_id, key_hash, body_hash)

    async def resume(
        self,
        stream_id: str,
        new_id: str,
        pending: bytes,
        digest: str,
        frame: bytes | None = None,
        grace_ms: int = 0,
        fields: Mapping[str, Any] | None = None,
    ) -> tuple[str, str, int | None]:
        """Store an answer to a question, and create the stream `new_id`; without a frame only check.

        Return a word (`resumed`, `answered`, `waiting`, `unmatched`, `none` or `unknown`). With the first two
        words also return the id of the stream that continues. If this call created it, also return for how
        many ms the log of the old stream would have been kept. Both ids must be of one bucket.
        """
        pairs = [item for pair in (fields or {}).items() for item in pair]
        made = () if frame is None else (frame, grace_ms, *pairs)
        keys = [*self.keys(stream_id), *self.keys(new_id)[:2]]
        answer = await self._scripts["resume"](self._redis, keys, stream_id, new_id, pending, digest, *made)
        if made and answer[0] == "resumed":
            self._told(stream_id)
            self._told(new_id)
        return (
            answer[0],
            answer[1].decode() if len(answer) > 1 else "",
            answer[2] if len(answer) > 2 else None,
        )

    async def confirm(self, stream_id: str, grace_ms: int) -> bool:
        """Raise the expiry of a new stream for its whole run. Return False if the record has expired."""
        return (await self._telling("confirm", stream_id, grace_ms)).word == "ok"

    async def claim(
        self,
        stream_id: str,
        token: str,
        lease_ms: int,
        *,
        version: int = VERSION,
        foreign_ms: int = 0,
        run_ms: int = 0,
        producer: str = "",
    ) -> Answer:
        """Claim a stream: `claimed`, `held` (number: ms left), `foreign`, `over` (code), `ended`, `unknown`.

        `producer` is empty for a worker. A producer's `take` takes the stream at once, whoever has it. Its
        `keep` continues a claim with this token, and gets `held` if another producer has the stream now.
        `version` is that of the message. A record of another version gives `foreign` for `foreign_ms`, then
        it is claimed. `run_ms` is the longest run, counted from the first attempt; 0: only a worker may end
        the stream.
        """
        known = version if version == VERSION else ""
        args = (stream_id, token, lease_ms, known, foreign_ms, run_ms or "", producer)
        raw = await self._scripts["claim"](self._redis, self.keys(stream_id), *args)
        if raw[0] != "claimed":
            return Answer.said(raw)
        now_ms, log_end, flat, tells = raw[1:5]
        pairs = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        if tells:
            self._told(stream_id)
        return Answer("claimed", 0, Claim(Record.claimed(stream_id, pairs), token, now_ms, log_end))

    def appends(self, claim: Claim, lease_ms: int, source: BatchSource) -> ClaimAppends:
        """Return the appends of this claim. They need no task: after `ask`, `source` is asked for a batch."""
        stream_id = claim.record.id
        return ClaimAppends(
            self._appender.wait, self.keys(stream_id), (stream_id, claim.token), lease_ms, source
        )

    async def append(
        self,
        claim: Claim,
        position: int,
        frames: bytes,
        last_id: str,
        lease_ms: int,
        *,
        status: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Append frames: `ok`, `duplicate`, `lost` (number: log end), `fenced`, `ended` or `unknown`."""
        batch = Batch(position, frames, last_id, status, fields or {})
        name = "append"
        run = self._telling if tells(batch) else self._run
        return await run(name, *append_arguments(claim.record.id, claim.token, batch, lease_ms))

    async def advance(
        self, claim: Claim, position: int, lines: int, following: int, course: str, lease_ms: int
    ) -> Answer:
        """Count lines whose events the log has already: `ok`, `moved`, `fenced`, `ended` or `unknown`."""
        args = (claim.token, position, lines, following, course, lease_ms)
        return await self._run("advance", claim.record.id, *args)

    async def renew(self, claim: Claim, lease_ms: int) -> Answer:
        """Renew a lease without knowing the writer's position: append nothing at the present end of the log.

        If the writer appends in between, this call gets `fenced`; that append has then renewed the lease.
        """
        end = await self._redis.call("STRLEN", self.keys(claim.record.id)[1])
        return await self.append(claim, end, b"", claim.record.last_id, lease_ms)

    async def end_tokens(self, stream_id: str) -> Answer:
        """Make all tokens of a stream invalid: `ok`, or `unknown`."""
        return await self._run("end_tokens", stream_id)

    async def cancel(self, stream_id: str, tag: str) -> Answer:
        """Cancel: `cancelled`, `dropped` (number: ms the log was still to be kept), `ended` or `unknown`."""
        return await self._telling("cancel", stream_id, tag)

    async def see(self, stream_id: str) -> bool:
        """Note that a reader got the terminal event. Return whether a webhook was dropped for that."""
        return (await self._run("see", stream_id)).word == "seen"

    async def erase(self, stream_id: str) -> tuple[int, int]:
        """Delete every key of a stream. A worker that has claimed it then gets `unknown` and stops.

        Return for how many ms its log and its record would have been kept; negative if they did not exist.
        """
        job, log, index = self.keys(stream_id)
        if self.projector is not None:
            await self.projector.settle(stream_id)  # this counts the tokens that the stream used
        idem, owner, told = await self._redis.call("HMGET", job, "idem", "owner", "told")
        journal, due = Journal.key(stream_id), Journal.due_key(stream_id)
        names = (job, log, self.kept_key(stream_id), journal, *([idem] if idem else []))
        dropping = [("ZREM", index, stream_id), ("ZREM", due, stream_id), ("UNLINK", *names)]
        dropping += webhooks_dropped(stream_id, EVENTS)
        answers = await self._redis.call_all([("PTTL", log), ("PTTL", job), *dropping])
        if self.projector is not None and told:  # else the owner's feed has no event of this stream
            await self.projector.feeds.forget(owner.decode(), stream_id)
        return answers[0], answers[1]

    async def ask(self, stream_id: str, backoff_ms: int, *, undo: bool = False) -> Answer:
        """Ask whether to enqueue: `yes`, else `wait` or `held` (number: ms), `over`, `ended` or `unknown`.

        One caller gets `yes` in each back-off. `over`: the time of the stream is over, and the caller should
        end it with the code of the answer. `undo` withdraws a `yes` that could not be used.
        """
        return await self._run("ask", stream_id, backoff_ms, int(undo))

    async def give_up(self, stream_id: str, tag: str, failed: Event) -> Answer:
        """End a stream whose time is over, with its code: `over`, `wait` (not yet), `ended` or `unknown`.

        If the log is gone, a new log is begun. `tag` is the tag in the ids of the frames.
        """
        record, _ = await self.record(stream_id)
        if record is None:
            return Answer("unknown")
        bodies = [sse.encode(event, 0, tag).partition(b"\n")[2] for event in (started(record), failed)]
        return await self._telling(
            "give_up", stream_id, tag, failed.data["code"], *bodies, ending(failed)["error"]
        )

    async def thread_of(self, stream_id: str) -> tuple[str, str]:
        """Return the owner and the thread, or empty texts; also from a record of another release."""
        owner, thread = await self._redis.call("HMGET", self.keys(stream_id)[0], "owner", "thread")
        return (owner or b"").decode(), (thread or b"").decode()

    async def record(self, stream_id: str) -> tuple[Record | None, int]:
        """For an operator: return the whole record, or None, and the length of the log in bytes."""
        job, log, _ = self.keys(stream_id)
        flat, length = await self._redis.call_all([("HGETALL", job), ("STRLEN", log)])
        if not flat:
            return None, 0
        pairs = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        return Record.of(stream_id, pairs), length

    async def kept(self, stream_id: str) -> dict[str, bytes]:
        """Return what a retry of a failed stream needs, while it is kept: input, params, checkpoints."""
        flat = await self._redis.call("HGETALL", self.kept_key(stream_id))
        return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}

    async def event(self, stream_id: str, at: Cursor) -> sse.Message:
        """Return the event with this id. Raises CursorLost if there is none, or its frame exceeds 16 KiB."""
        start = at.offset
        raw = await self._redis.call("GETRANGE", self.keys(stream_id)[1], start, start + EVENT_BYTES - 1)
        end = raw.find(sse.FRAME_END) + len(sse.FRAME_END)
        if not raw.startswith(b"id: %b\n" % str(at).encode()) or end < len(sse.FRAME_END):
            raise CursorLost
        [message] = sse.Decoder().feed(raw[:end])
        return message

    async def look(self, stream_id: str, owner: str, *, any_owner: bool = False) -> Look:
        """Return the stream as its readers may see it, without its input. Another owner gets none."""
        raw = await self._scripts["look"](self._redis, self.keys(stream_id), owner, int(any_owner))
        if raw[0] != "found":
            return Look(raw[1])
        flat = raw[4:]
        pairs = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        return Look(raw[1], Record.of(stream_id, pairs), raw[2], raw[3].decode())

    async def heads(self, stream_ids: list[str]) -> list[Head]:
        """Return each stream's last event, lease and wait, in one call. A deleted stream has an empty id.

        All times use the clock of the node that has the first stream. In a cluster group the ids with
        `by_node` first.
        """
        fields = (
            "last_id",
            "status",
            "lease_end_ms",
            "lease_ms",
            "since_ms",
            "started_ms",
            "wait_ms",
            "run_ms",
        )
        commands: list[tuple[str, ...]] = [("HMGET", self.keys(s)[0], *fields) for s in stream_ids]
        clock, *raw = await self._redis.call_all([("TIME",), *commands])
        now_ms = self._clock(clock)
        return [head_of(now_ms, *values) for values in raw]

    async def due(self, most: int, *, all_of_them: bool = False) -> list[str]:
        """Return the streams in the index whose due time has come, up to `most` of each bucket.

        `all_of_them` returns also the streams whose time has not come.
        """
        return await due(self._redis, "open", most, all_of_them=all_of_them)

    async def by_node(self, stream_ids: list[str]) -> list[list[str]]:
        """Group these streams by the node that has them. Each node has its own clock, and may fail alone."""
        of = {self.keys(stream_id)[0]: stream_id for stream_id in stream_ids}
        return [[of[key] for key in keys] for keys in await self._redis.by_node(list(of))]

    async def take_turn(self, what: str, ms: int) -> str:
        """Return `yes` if this process may do `what` for the next `ms` milliseconds, otherwise `no`.

        `back` also means yes. In addition Redis's clock has gone back since the last turn. So an expiry or a
        due time that was set by the old clock is too far away.
        """
        key = f"turn:{what}"
        now_ms = await self.now_ms(key)
        if await self._redis.call("SET", key, now_ms, "NX", "PX", ms) is None:
            if await self._redis.call("PTTL", key) <= ms:
                return "no"
            await self._redis.call("SET", key, now_ms, "PX", ms)
        seen = await self._redis.call("SET", f"{key}:seen", now_ms, "PX", SEEN_MS, "GET")
        return "back" if seen is not None and int(seen) > now_ms + CLOCK_SPARE_MS else "yes"

    async def read(self, stream_id: str, after: Cursor | None, limit: int = PIECE_BYTES) -> Piece:
        """Return the whole frames after a cursor, about `limit` bytes of them (at least 32).

        Raises CursorLost if the log does not contain the cursor.
        """
        start, first = after.offset if after else 0, limit
        while True:
            raw = await self._redis.call("GETRANGE", self.keys(stream_id)[1], start, start + limit - 1)
            if after and not raw.startswith(b"id: %b\n" % str(after).encode()):
                raise CursorLost
            at_end = is_rest = len(raw) < limit
            end = raw.rfind(sse.FRAME_END) + 2
            if limit > first:  # send a frame larger than a piece alone: more frames make a long turn
                own = raw.find(sse.FRAME_END) + 2 if after else 0
                alone = raw.find(sse.FRAME_END, max(own, first - 2))
                if alone >= 0:
                    is_rest, end = at_end and alone + 2 == end, alone + 2
            piece = piece_of(raw[:end], after, is_rest)
            if piece.frames or at_end:
                return piece
            if limit > MAX_FRAME_BYTES:
                raise CursorLost("a frame has no end")
            limit *= 4  # one frame is larger than the piece

    def _clock(self, answer: list[bytes]) -> int:
        """Convert the answer of TIME to milliseconds."""
        now_ms = int(answer[0]) * 1000 + int(answer[1]) // 1000
        telemetry.relay_lag.clock(now_ms)
        return now_ms

    async def _create(self, stream_id: str, key_hash: str, body_hash: str, *made: Any) -> tuple[str, str]:
        keys = self.keys(stream_id)
        if key_hash:
            keys.append("{" + bucket(stream_id) + "}:idem:" + key_hash)
        args = (stream_id, CREATED_EXPIRY_MS, body_hash, *made)
        answer = await self._scripts["create"](self._redis, keys, *args)
        return answer[0], answer[1].decode() if len(answer) > 1 else stream_id

    async def _telling(self, name: str, stream_id: str, *args: Any) -> Answer:
        """Call a script by `_run`. If it may have written to the journal, report that to the projector."""
        answer = await self._run(name, stream_id, *args)
        if answer.word in _TELLING:
            self._told(stream_id)
        return answer

    def _told(self, stream_id: str) -> None:
        if self.projector is not None:
            self.projector.told(stream_id)

    async def _run(self, name: str, stream_id: str, *args: Any) -> Answer:
        return Answer.said(await self._scripts[name](self._redis, self.keys(stream_id), stream_id, *args))
