"""The parts of an open gateway: its connections, and the objects that use them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.azure import credentials
from gateway.queue.job_queue import JobQueue
from gateway.queue.turns import Turns
from gateway.redis.commands import Commands
from gateway.relay.follow import Relay
from gateway.relay.hub import Hub
from gateway.store.conversations import Conversations
from gateway.store.log import Log
from gateway.store.mine import Mine
from gateway.store.outbox import Outbox
from gateway.store.presence import Presence
from gateway.store.threads import Threads
from gateway.streams.create import Creation
from gateway.streams.opening import Opening
from gateway.streams.resuming import Resuming


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts of a gateway. They are opened at the first use."""

    redis: Commands
    log: Log
    hub: Hub
    relay: Relay
    queue: JobQueue
    creation: Creation
    opening: Opening
    resuming: Resuming
    conversations: Conversations
    threads: Threads
    mine: Mine
    outbox: Outbox
    turns: Turns
    presence: Presence
    tokens: credentials.RedisTokens | None
