"""The newest stream of a named conversation, in a real Redis.

The second of two writers is refused, and no stream is lost.
"""

from __future__ import annotations

from gateway.settings import Settings
from gateway.store.conversations import Conversation, Conversations
from tests.support.following import connected


async def test_only_who_has_seen_the_newest_goes_on_from_it(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        conversations = Conversations(redis, Settings())
        none = Conversation()
        assert await conversations.turn("k", "alice", "n", none, "first", {"x": "\ud83d"})
        # The same call again, as if its answer was lost.
        assert await conversations.turn("k", "alice", "n", none, "first")
        assert not await conversations.turn("k", "alice", "n", none, "other")
        first = await conversations.look("k", "alice", "n")
        assert first == Conversation("first", {"x": "\ud83d"})
        assert await conversations.turn("k", "alice", "n", first, "second")
        second = await conversations.look("k", "alice", "n")
        assert second.stream == "second"
        await conversations.drop("alice", [("k", "n"), ("k", "other")])
        assert await conversations.look("k", "alice", "n") == none


async def test_a_name_is_its_callers_and_its_formats_own(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        conversations = Conversations(redis, Settings())
        await conversations.turn("k", "alice", "n", Conversation(), "hers")
        assert not (await conversations.look("k", "bob", "n")).stream
        assert not (await conversations.look("other", "alice", "n")).stream
        await conversations.keep("alice", "stream", "k", [1])
        assert await conversations.kept("alice", "stream", "k") == [1]
        assert await conversations.kept("alice", "stream", "other") is None
        assert await conversations.kept("bob", "stream", "k") is None
