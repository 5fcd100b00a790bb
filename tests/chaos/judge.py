"""The checks: compare each stream's log, its readers' bytes, its status document and the model's text."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

import httpx

from gateway.store.log import Log
from tests.chaos import texts, wire
from tests.chaos.fold import fold
from tests.chaos.readers import Reader
from tests.chaos.stage import Stage
from tests.chaos.streams import Asked
from tests.chaos.tally import Tally

LOOK_SECONDS = 20.0
_AT_ONCE = 16
_COMPARED = ("last_event_id", "status", "stages", "text")


class Judge:
    """Check streams after all activity has ended."""

    def __init__(self, stage: Stage, tally: Tally, client: httpx.AsyncClient) -> None:
        self._stage = stage
        self._tally = tally
        self._client = client

    async def all(self, streams: list[Asked], readers: list[Reader]) -> None:
        """Check every stream, every reader and every key."""
        places = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._last_look(reader, places) for reader in readers if reader.looks))
        by_stream: dict[str, list[Reader]] = {}
        for reader in readers:
            by_stream.setdefault(reader.asked.id, []).append(reader)
        for asked in streams:
            await self._stream(asked, by_stream.get(asked.id, []))
        await self._keys()

    async def _last_look(self, reader: Reader, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await reader.last_look()
            except TimeoutError:
                self._find(reader.asked, f"reader {reader.name} got no 204 within {LOOK_SECONDS:.0f} s")

    async def _stream(self, asked: Asked, readers: list[Reader]) -> None:
        job, log_key, _ = Log.keys(asked.id)
        if not await self._stage.redis.exists(job):
            self._vanished(asked)
            return
        log = await self._stage.redis.get(log_key) or b""
        if not self._log(asked, log):
            return
        mine = fold(log)
        self._tally.streams[str(mine["status"])] += 1
        self._text(asked, mine)
        for reader in readers:
            self._reader(reader, log)
        await self._document(asked, mine)
        if asked.id in self._tally.suspects:
            self._tally.suspects[asked.id] = log

    def _vanished(self, asked: Asked) -> None:
        """Count a stream that vanished after its 202. This is allowed in a time whose data Redis has lost."""
        self._tally.streams["vanished"] += 1
        if not self._stage.store.may_have_lost(asked.asked_at, asked.accepted_at):
            self._find(asked, "answered 202 and is gone; its POST was in no window that was lost")

    def _log(self, asked: Asked, log: bytes) -> bool:
        """Check the form of the log: ids are positions, `start` comes first and once, one terminal event
        comes last."""
        at = 0
        frames = wire.frames_of(log)
        for frame in frames:
            if not wire.is_frame(frame) or int(wire.event_id(frame).partition("-")[0]) != at:
                self._find(
                    asked, f"byte {at} of its log does not begin a frame with that id: {frame[:200]!r}"
                )
                return False
            if wire.kind(frame) == b"reset":
                self._tally.resets[json.loads(frame[frame.index(b"\ndata: ") + 7 :])["attempt"]] += 1
            at += len(frame)
        kinds = [wire.kind(frame) for frame in frames]
        ends = [kind for kind, frame in zip(kinds, frames, strict=True) if wire.terminal(frame)]
        if at != len(log) or kinds[:1] != [b"start"] or kinds.count(b"start") != 1:
            self._find(
                asked, f"its log has {len(log)} bytes, {at} of them frames, beginning with {kinds[:2]}"
            )
        elif len(ends) != 1 or kinds[-1] != ends[0]:
            self._find(asked, f"its terminal events are {ends}, its last event is {kinds[-1]!r}")
        else:
            return True
        self._tally.streams["not ended"] += 1
        return False

    def _text(self, asked: Asked, mine: Mapping[str, Any]) -> None:
        status, model = mine["status"], self._stage.model
        if status == "failed":
            self._find(asked, "ended failed, and the model failed in no way that may not pass")
            return
        if status == "cancelled" and asked.cancel_after is None:
            self._find(asked, "was cancelled, by nobody")
        for text in texts.wrong(asked.parts, mine, model.answers, model.handed):
            self._find(asked, text)

    def _reader(self, reader: Reader, log: bytes) -> None:
        held = bytes(reader.held)
        if reader.failed or not reader.looks:
            return  # the finding is already recorded
        if reader.gone:
            self._find(reader.asked, f"reader {reader.name} was answered 404, and the stream is there")
        elif held != log:
            self._find(
                reader.asked, f"reader {reader.name} is not the log: {texts.byte_difference(held, log)}"
            )

    async def _document(self, asked: Asked, mine: dict[str, object]) -> None:
        url = f"{self._stage.url(random.Random(asked.id))}/stream/{asked.id}"
        answer = await self._client.get(url, headers={"accept": "application/json"})
        document = answer.json()
        for name in _COMPARED:
            if document.get(name) != mine[name]:
                self._find(
                    asked, f"status document's {name}: {document.get(name)!r}, the log says {mine[name]!r}"
                )

    async def _keys(self) -> None:
        redis = self._stage.redis
        everlasting = [key async for key in redis.scan_iter("*", count=1000) if await redis.ttl(key) == -1]
        if everlasting:
            self._tally.find(f"{len(everlasting)} keys without expiry: {everlasting[:5]}")

    def _find(self, asked: Asked, text: str) -> None:
        self._tally.find(f"stream {asked.id} ({asked.name}): {text}", asked.id)
