"""The log on the stores that `run` starts when no Redis is given: a server in a folder, or fakeredis."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import protocol
from gateway.protocol import Cursor
from gateway.protocol.errors import CursorLost
from gateway.redis.embedded_fake import FakeStore
from gateway.redis.embedded_folder import FolderStore
from gateway.store.log import Log
from tests.model.streams import CANCEL_TAG, DONE, LEASE_MS, Stream, open_log, said, start_frame, token
from tests.support.processes import store_ended


@pytest.fixture(params=["in a folder", "fakeredis"])
async def embedded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    if request.param == "fakeredis":
        fake = FakeStore()
        async with open_log(await fake.start()) as log:
            yield log
        await fake.stop()
        return
    program = shutil.which("redis-server")
    assert program
    store = FolderStore(tmp_path, program)
    await store.start()
    async with open_log(store.url) as log:
        yield log
    store.stop()
    await store_ended(tmp_path)


async def test_a_life_on_each_embedded_redis(embedded: Log) -> None:
    """Call six of the log's scripts in the order of one stream's life, and check each answer."""
    log = embedded
    key = protocol.idempotency_hash("anonymous", "key")
    stream, other = (Stream(log, protocol.new_stream_id(key)) for _ in range(2))
    words = [
        await each.create_again(key=key, body=body)
        for each, body in zip((stream, other, other), "bbc", strict=True)
    ]
    assert [word for word, _ in words] == ["created", "exists", "conflict"]
    assert [(await log.ask(stream.id, 9000)).word, await log.confirm(stream.id, 9000)] == ["wait", True]
    assert [(await log.ask(stream.id, 9000)).word for _ in range(2)] == ["yes", "wait"]
    first = await stream.pen(1)
    assert ((await stream.pen(1)).end, (await log.ask(stream.id, 9000)).word) == (first.end, "held")
    assert (await log.claim(stream.id, token(2), LEASE_MS)).word == "held"
    begin = first.end
    assert (await first.write(said("a\n\0\u2028"), said("x" * 5000), **{"ckpt:answer": "1"})).word == "ok"
    assert (await first.put(begin, first.wrote)).word == "duplicate"
    assert (await first.put(first.end + 1, first.wrote)).word == "lost"
    assert [(await first.release()).word for _ in range(2)] == ["ok", "ok"]
    second = await stream.pen(2)
    assert (second.claim.record.attempt, second.claim.record.failures) == (2, 0)
    assert (await first.write(said("late"))).word == "fenced"
    assert (await second.write(DONE, status="done")).word == "ok"
    ended = [
        await second.write(said("late")),
        await log.cancel(stream.id, CANCEL_TAG),
        await log.ask(stream.id, 1),
    ]
    assert [answer.word for answer in ended] == ["ended"] * 3
    pieces, after, at_end = b"", None, False
    while not at_end:
        piece = await log.read(stream.id, after, 64)
        pieces, after, at_end = pieces + piece.frames, piece.last, piece.at_end
    assert pieces == start_frame(stream.id) + first.wrote + second.wrote
    with pytest.raises(CursorLost):
        await log.read(stream.id, Cursor.parse("9999999999-beef"))
