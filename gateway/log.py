"""The log of a stream in Redis: create, confirm, claim, append, cancel, ask, read.

The log is the wire: one string of the very frames that readers receive. Every change is one script, so
record, frames, index and publish change together, and each script is idempotent: a call whose answer was
lost is made again with the same arguments. Time is Redis's own. Every key expires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from gateway import sse
from gateway.connection import Connection
from gateway.errors import CursorLost
from gateway.protocol import Cursor, Status
from gateway.record import Answer, Claim, Head, Piece, Record

CREATED_EXPIRY_MS = 60_000
BUCKETS = 256
PIECE_BYTES = 64 * 1024
MAX_FRAME_BYTES = 16 * 1024 * 1024
_LUA = Path(__file__).parent / "lua"


class Script:
    """One Lua script, sent by its hash, and whole when the server does not know it."""

    def __init__(self, name: str) -> None:
        self.source = (_LUA / "common.lua").read_text() + (_LUA / f"{name}.lua").read_text()
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Connection, keys: list[str], *args: Any) -> list[Any]:
        """The script's answer, a list whose first item is a word."""
        try:
            answer = await redis.call("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            answer = await redis.call("EVAL", self.source, len(keys), *keys, *args)
        return [answer[0].decode(), *answer[1:]]


def bucket(stream_id: str) -> str:
    """The hash tag that keeps all keys of a stream on one node."""
    return stream_id[:2]


class Log:
    """The data model; holds no state but the connection."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        names = ("create", "confirm", "claim", "append", "cancel", "ask")
        self._scripts = {name: Script(name) for name in names}

    @staticmethod
    def keys(stream_id: str) -> list[str]:
        """The keys of a stream: job, log, and its bucket's index of streams that are not ended."""
        tag = "{" + bucket(stream_id) + "}"
        return [f"{tag}:job:{stream_id}", f"{tag}:log:{stream_id}", f"{tag}:open"]

    async def now_ms(self) -> int:
        """Redis's clock."""
        seconds, micros = await self._redis.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def create(
        self,
        stream_id: str,
        fields: Mapping[str, Any],
        first_frame: bytes,
        *,
        key_hash: str = "",
        body_hash: str = "",
    ) -> tuple[str, str]:
        """Make record and first frame, for 60 s. Answers (`created` | `exists` | `conflict`, id)."""
        keys = self.keys(stream_id)
        if key_hash:
            keys.append("{" + bucket(stream_id) + "}:idem:" + key_hash)
        pairs = [item for pair in fields.items() for item in pair]
        args = (stream_id, CREATED_EXPIRY_MS, body_hash, first_frame, *pairs)
        answer = await self._scripts["create"](self._redis, keys, *args)
        return answer[0], answer[1].decode() if len(answer) > 1 else stream_id

    async def confirm(self, stream_id: str, grace_ms: int) -> bool:
        """Raise the expiry to the retention; False when the record has expired."""
        return (await self._run("confirm", stream_id, grace_ms)).word == "ok"

    async def claim(self, stream_id: str, token: str, lease_ms: int) -> Answer:
        """`claimed`, `held` (number: ms left), `ended` or `unknown`."""
        raw = await self._scripts["claim"](self._redis, self.keys(stream_id), stream_id, token, lease_ms)
        if raw[0] != "claimed":
            return _answer(raw)
        now_ms, log_end, flat = raw[1], raw[2], raw[3]
        pairs = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        return Answer("claimed", 0, Claim(Record.of(stream_id, pairs), token, now_ms, log_end))

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
        """`ok`, `duplicate`, `lost` (number: log end), `fenced`, `ended` or `unknown`."""
        pairs = [item for pair in (fields or {}).items() for item in pair]
        args = (claim.token, position, frames, last_id, lease_ms, status, *pairs)
        return await self._run("append", claim.record.id, *args)

    async def cancel(self, stream_id: str, tag: str) -> Answer:
        """`cancelled`, `ended` or `unknown`."""
        return await self._run("cancel", stream_id, tag)

    async def ask(self, stream_id: str, backoff_ms: int) -> Answer:
        """`yes` once in a back-off, else `wait` or `held` (number: ms), `ended`, `unknown`."""
        return await self._run("ask", stream_id, backoff_ms)

    async def record(self, stream_id: str) -> tuple[Record | None, int]:
        """The record, or None, and the log's length in bytes (0: past its retention)."""
        job, log, _ = self.keys(stream_id)
        flat, length = await self._redis.call_all([("HGETALL", job), ("STRLEN", log)])
        if not flat:
            return None, 0
        pairs = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        return Record.of(stream_id, pairs), length

    async def heads(self, stream_ids: list[str]) -> list[Head]:
        """Each stream's last event and lease, in one round trip; an empty id for a stream that is gone."""
        fields = ("last_id", "status", "lease_end_ms", "lease_ms")
        commands: list[tuple[str, ...]] = [("HMGET", self.keys(s)[0], *fields) for s in stream_ids]
        (seconds, micros), *raw = await self._redis.call_all([("TIME",), *commands])
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return [_head(now_ms, *values) for values in raw]

    async def due(self, most: int) -> list[str]:
        """Streams that are not ended and whose time to be looked at has come, `most` of each bucket."""
        now_ms = await self.now_ms()
        commands = [
            ("ZRANGEBYSCORE", f"{{{number:02x}}}:open", "-inf", now_ms, "LIMIT", 0, most)
            for number in range(BUCKETS)
        ]
        return [item.decode() for found in await self._redis.call_all(commands) for item in found]

    async def take_turn(self, what: str, ms: int) -> bool:
        """Whether this process is the one to do it in the next so many milliseconds."""
        return await self._redis.call("SET", f"turn:{what}", "1", "NX", "PX", ms) is not None

    async def read(self, stream_id: str, after: Cursor | None, limit: int = PIECE_BYTES) -> Piece:
        """The whole frames after a cursor, about `limit` bytes of them (at least 32).

        Raises CursorLost when the cursor does not stand in the log.
        """
        start = after.offset if after else 0
        while True:
            raw = await self._redis.call("GETRANGE", self.keys(stream_id)[1], start, start + limit - 1)
            if after and not raw.startswith(b"id: %b\n" % str(after).encode()):
                raise CursorLost
            at_end = len(raw) < limit
            piece = _piece(raw[: raw.rfind(sse.FRAME_END) + 2], after, at_end)
            if piece.frames or at_end:
                return piece
            if limit > MAX_FRAME_BYTES:
                raise CursorLost("a frame has no end")
            limit *= 4  # one frame is larger than the piece

    async def _run(self, name: str, stream_id: str, *args: Any) -> Answer:
        return _answer(await self._scripts[name](self._redis, self.keys(stream_id), stream_id, *args))


def _answer(raw: list[Any]) -> Answer:
    value = raw[1] if len(raw) > 1 else 0
    if isinstance(value, int):
        return Answer(raw[0], value)
    return Answer(raw[0], trace=value.decode() if raw[0] == "yes" else "")


def _head(
    now_ms: int, last: bytes | None, status: bytes | None, end: bytes | None, length: bytes | None
) -> Head:
    if status != Status.RUNNING.encode():
        return Head((last or b"").decode())
    left = int(end or 0) - now_ms
    return Head((last or b"").decode(), left if 0 < left <= int(length or 0) else 0)


def _piece(raw: bytes, after: Cursor | None, at_end: bool) -> Piece:
    """Of whole frames, the first of which the reader has when it came with a cursor."""
    if len(raw) < len(sse.NEXT_FRAME):
        return Piece(b"", after, False, at_end)
    last = raw[raw.rfind(sse.NEXT_FRAME, 0, -2) + 1 :].removeprefix(b"\n")
    cursor = Cursor.parse(last[len(sse.ID_PREFIX) : last.index(b"\n")].decode())
    frames = raw[raw.index(sse.FRAME_END) + 2 :] if after else raw
    return Piece(frames, cursor, sse.is_terminal(last), at_end)
