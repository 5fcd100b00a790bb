"""Conversations of formats whose clients name one: its newest stream, and its state when that began.

A name is its caller's own: another's conversation of the same name is another one. One that has no stream yet
stands nowhere, so there are never more than streams were started. A conversation holds what was asked: it is
kept for a run's longest time and the retention, from its newest stream's start on, and expires by itself.
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
ALSO = "also"  # in what a format keeps of a stream: other conversations that stand for it


@dataclass(frozen=True, slots=True)
class Conversation:
    """`stream` is the newest one's id, empty before the first; `state` is any JSON, as its format has it."""

    stream: str = ""
    state: Any = field(default=None, repr=False)


class Conversations:
    """Those of all callers. Raises StoreUnavailable."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self._redis = redis
        self._script = Script("turn", shared=False)
        self._keep_ms = round((settings.max_run + settings.retention) * 1000)

    async def keep(self, owner: str, stream: str, kind: str, state: Any) -> None:
        """What a format (`kind`) needs later of a stream that it has started; the first one stays."""
        await self.turn(OF_STREAM, owner, stream, Conversation(), stream, [kind, state])

    async def kept(self, owner: str, stream: str, kind: str) -> Any:
        """That, or None, also of another format's. It counts as the caller's bytes (`quota.py`)."""
        found = (await self.look(OF_STREAM, owner, stream)).state
        return found[1] if found is not None and found[0] == kind else None

    async def also(self, owner: str, stream: str) -> list[tuple[str, str]]:
        """Conversations, by kind and name, that stand for this stream alone: they are to go with it."""
        found = (await self.look(OF_STREAM, owner, stream)).state
        also = found[1].get(ALSO, []) if found is not None and isinstance(found[1], dict) else []
        return [(kind, name) for kind, name in also]

    @staticmethod
    def key(kind: str, owner: str, name: str) -> str:
        """Where it stands; `kind` is the format's."""
        told = f"{kind}\0{owner}\0{name}".encode(errors="surrogatepass")
        return f"{{{hashlib.sha256(told).hexdigest()[:32]}}}:conversation"

    async def look(self, kind: str, owner: str, name: str) -> Conversation:
        """As it stands."""
        stream, state = await self._redis.call("HMGET", self.key(kind, owner, name), "stream", "state")
        return Conversation(stream.decode(), json.loads(state)) if stream else Conversation()

    async def drop(self, owner: str, names: Sequence[tuple[str, str]]) -> None:
        """Delete these, each by its kind and name."""
        await self._redis.call_all([("UNLINK", self.key(kind, owner, name)) for kind, name in names])

    async def turn(
        self, kind: str, owner: str, name: str, before: Conversation, stream: str, state: Any = None
    ) -> bool:
        """Go on from what it was with another stream; False when somebody else did first."""
        key = self.key(kind, owner, name)
        args = (before.stream, stream, sse.dumps(state), self._keep_ms)
        word, *_ = await self._script(self._redis, [key], *args)
        return bool(word == "ok")
