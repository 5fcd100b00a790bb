"""Conversations that clients of some formats name: the newest stream, and the state when that stream began.

A conversation belongs to one caller: two callers may use the same name for different conversations. A
conversation without a stream is not stored, so there are never more conversations than started streams. A
conversation contains what the client asked. It is kept for the longest time of a run plus the retention,
counted from the start of its newest stream. Then it expires by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import sse
from gateway.redis.commands import Commands
from gateway.redis.script import Script
from gateway.settings import Settings

OF_STREAM = "stream"
ALSO = "also"  # key in the state of a stream: a list of other conversations that belong to this stream


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation.

    `stream` is the id of the newest stream, or empty before the first stream. `state` is any JSON value; its
    format defines it.
    """

    stream: str = ""
    state: Any = field(default=None, repr=False)


class Conversations:
    """The conversations of all callers. The methods raise StoreUnavailable."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self._redis = redis
        self._script = Script("turn", shared=False)
        self._keep_ms = round((settings.max_run + settings.retention) * 1000)

    async def keep(self, owner: str, stream: str, kind: str, state: Any) -> None:
        """Store what a format (`kind`) needs later about a stream that it started.

        A second call changes nothing.
        """
        await self.turn(OF_STREAM, owner, stream, Conversation(), stream, [kind, state])

    async def kept(self, owner: str, stream: str, kind: str) -> Any:
        """Return what `keep` stored.

        Return None if nothing was stored, or if another format stored it. The stored bytes count as bytes of
        the caller (`quota.py`).
        """
        found = (await self.look(OF_STREAM, owner, stream)).state
        return found[1] if found is not None and found[0] == kind else None

    async def also(self, owner: str, stream: str) -> list[tuple[str, str]]:
        """Return the kind and name of each conversation that belongs only to this stream.

        These conversations must be deleted together with the stream.
        """
        found = (await self.look(OF_STREAM, owner, stream)).state
        also = found[1].get(ALSO, []) if found is not None and isinstance(found[1], dict) else []
        return [(kind, name) for kind, name in also]

    @staticmethod
    def key(kind: str, owner: str, name: str) -> str:
        """Return the Redis key of a conversation. `kind` names the format."""
        told = f"{kind}\0{owner}\0{name}".encode(errors="surrogatepass")
        return f"{{{hashlib.sha256(told).hexdigest()[:32]}}}:conversation"

    async def look(self, kind: str, owner: str, name: str) -> Conversation:
        """Return the conversation as it is stored now; an empty one if it is not stored."""
        stream, state = await self._redis.call("HMGET", self.key(kind, owner, name), "stream", "state")
        return Conversation(stream.decode(), json.loads(state)) if stream else Conversation()

    async def drop(self, owner: str, names: Sequence[tuple[str, str]]) -> None:
        """Delete these conversations. Each is given by its kind and name."""
        await self._redis.call_all([("UNLINK", self.key(kind, owner, name)) for kind, name in names])

    async def turn(
        self, kind: str, owner: str, name: str, before: Conversation, stream: str, state: Any = None
    ) -> bool:
        """Store a new stream and state, if the conversation still has the stream of `before`.

        Return False if another request changed the conversation first.
        """
        key = self.key(kind, owner, name)
        args = (before.stream, stream, sse.dumps(state), self._keep_ms)
        word, *_ = await self._script(self._redis, [key], *args)
        return bool(word == "ok")
