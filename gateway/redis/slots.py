"""The slot map of a Redis cluster: the node of each slot, and the slot of a command's key. No I/O.

The map is the answer to `CLUSTER SLOTS` (redis.io, "Redis cluster specification").
"""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

from gateway.redis.commands import Command

_KEYLESS = {"TIME", "PING", "ECHO", "INFO", "SCRIPT", "ACL", "PUBLISH", "CLUSTER", "CLIENT"}


class Node(NamedTuple):
    """A node's address, and the host name that must be in its certificate."""

    host: str
    port: int
    tls_name: str


def key_of(command: Command) -> str | bytes | None:
    """Return a command's first key, or None.

    In a cluster all keys of a command must have the same slot.
    """
    name = str(command[0]).upper()
    if name in _KEYLESS:
        return None
    if name in ("EVALSHA", "EVAL"):
        key = command[3] if int(command[2]) else None
    elif name == "XREADGROUP":
        key = command[command.index("STREAMS") + 1]
    else:
        key = command[2 if name in ("XGROUP", "MEMORY") else 1]
    return key if key is None or isinstance(key, bytes) else str(key)


def slot_of_key(key: str | bytes) -> int:
    """Return the CRC16 slot of the text in the key's first braces, or of the whole key."""
    return key_slot(key.encode() if isinstance(key, str) else key)


class Map:
    """The owner of each slot, and all owners. `host` is the host name in the URL."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._owners: list[Node | None] = [None] * SLOTS
        self.nodes: list[Node] = []

    def learn(self, ranges: list[Any], asked: str) -> None:
        """Take over the answer to `CLUSTER SLOTS`. `asked` is the host that sent it."""
        self._owners = [None] * SLOTS
        for first, last, master, *_ in ranges:
            self._owners[first : last + 1] = [self._node(master, asked)] * (last - first + 1)
        self.nodes = list(dict.fromkeys(node for node in self._owners if node is not None))

    def moved(self, slot: int, node: Node) -> None:
        """Store the new owner of a slot."""
        self._owners[slot] = node

    def owner(self, key: str | bytes) -> Node | None:
        """Return the node that has this key, or None if no node has its slot."""
        return self._owners[slot_of_key(key)]

    def at(self, host: str, port: int) -> Node:
        """Return the node at this address, with the host name that the node has announced."""
        known = (node for node in self.nodes if (node.host, node.port) == (host, port))
        return next(known, Node(host, port, self._name_of(host)))

    def _node(self, said: list[Any], asked: str) -> Node:
        """Return the node in the form [host, port, id, [name, value, …]].

        A node without a host is the node that was asked.
        """
        host = (said[0] or b"").decode().strip("?") or asked
        more = [item.decode() for item in said[3]] if len(said) > 3 else []
        announced = dict(zip(more[::2], more[1::2], strict=True)).get("hostname", "")
        return Node(host, said[1], announced or self._name_of(host))

    def _name_of(self, host: str) -> str:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return host
        return self._host
