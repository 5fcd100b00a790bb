"""Commands to Redis, whether the URL leads to a single server or to a cluster.

`Router` finds out which of them it is, at its first call, and then leaves all calls to one `Connection` or to
one `Cluster`. A cluster has one pipelined connection to each node; a call for several nodes goes to all of
them at once. A slot that moves is followed (MOVED, ASK). When a node is out of reach, only its own commands
fail.

Nodes announce their addresses. Over TLS, a node's certificate is checked for the host name that the node
announces, or else for the host name in the URL. A subscriber may subscribe at any node, because a cluster
hands publishes on to all nodes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from redis.exceptions import AskError, ClusterDownError, MovedError

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Command, Commands
from gateway.redis.connect import TIMEOUT_SECONDS, Place, place_of
from gateway.redis.connection import BROKEN, Connection
from gateway.redis.refusals import is_elsewhere, is_forbidden, is_unavailable, told_by_hello
from gateway.redis.replies import Answer
from gateway.redis.slots import Map, Node, key_of, slot_of_key

MOST_ROUNDS = 5  # of sending a command on: after more, the cluster does not know its own map
REFRESH_SECONDS = 1.0  # between two questions for the cluster's map
ASK_SECONDS = 1.0  # for one node to answer with it
_log = logging.getLogger("holdfast.cluster")


class Aim(NamedTuple):
    """Where a command goes next. `asking`: its slot is being moved to that node, so ASKING goes before it."""

    node: Node | None
    asking: bool = False


class Router(Commands):
    """Commands to whatever the URL leads to: a single server or a cluster, found out at the first call."""

    def __init__(self, where: str | Place, *, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._place = place_of(where)
        self._server = Connection(self._place, name=name, timeout=timeout)
        self._cluster = Cluster(self._place, self._server, name=name, timeout=timeout)
        self._chosen: Connection | Cluster | None = None
        if self._place.url.startswith("unix://"):
            self._chosen = self._server
        self._choosing = asyncio.Lock()
        self._failed = 0  # how often it could not be found out

    async def answers(self, commands: list[Command]) -> list[Answer]:
        """As `Commands` says, from the server or from the nodes."""
        if not commands:
            return []
        return await (self._chosen or await self._choose()).answers(commands)

    def slot(self, key: str) -> int:
        """The key's slot. Until it is known what is at the URL, as in a cluster."""
        return slot_of_key(key) if self._chosen is None else self._chosen.slot(key)

    def post(self, key: str, command: Command, answered: Callable[[Answer], None]) -> bool:
        """As `Commands` says; also False until it is known what is at the URL."""
        return self._chosen is not None and self._chosen.post(key, command, answered)

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """As `Commands` says."""
        if not keys:
            return []
        return await (self._chosen or await self._choose()).by_node(keys)

    async def nodes(self) -> Sequence[Commands]:
        """As `Commands` says."""
        return await (self._chosen or await self._choose()).nodes()

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(self._server.close(), self._cluster.close())

    def place(self) -> Place:
        """A server to subscribe at. Of a cluster this may be another node each time."""
        return self._cluster.place() if self._chosen is self._cluster else self._place

    def on_moved(self, moved: Callable[[], None]) -> None:
        """Call `moved` when a single server is not the primary any more and another one was found."""
        self._server.moved = moved

    async def _choose(self) -> Connection | Cluster:
        """Find out what is at the URL. One question serves all calls that wait for it, also when it fails."""
        failed = self._failed
        async with self._choosing:
            if self._chosen is None and self._failed != failed:
                raise StoreUnavailable
            if self._chosen is None:
                try:
                    self._chosen = await self._found()
                except StoreUnavailable:
                    self._failed += 1
                    raise
            return self._chosen

    async def _found(self) -> Connection | Cluster:
        [ranges] = await self._server.answers([("CLUSTER", "SLOTS")])
        if is_forbidden(ranges):  # perhaps for ever, so a single server is used without this answer
            [hello] = await self._server.answers([("HELLO",)])
            if told_by_hello(hello, b"mode") != b"cluster":
                return self._server
        if isinstance(ranges, Exception):
            if is_unavailable(ranges):
                raise StoreUnavailable from ranges
            return self._server
        await self._cluster.learn(ranges)
        return self._cluster


class Cluster(Commands):
    """Commands to the nodes of a cluster. A call takes at most twice `timeout` seconds.

    `seed` is a connection to the address in the URL. It is asked for the map first, and when no node answers.
    """

    def __init__(self, place: Place, seed: Connection, *, name: str, timeout: float) -> None:
        self._place = place
        self._seed = seed
        self._name = name
        self._timeout = timeout
        self._host = urlsplit(place.url).hostname or ""
        self._map = Map(self._host)
        self._connections: dict[Node, Connection] = {}
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")  # when the map was asked for last
        self._doubted = False  # a node has not answered: another node may have its slots
        self._closed = False

    async def answers(self, commands: list[Command]) -> list[Answer]:
        """As `Commands` says, from as many nodes as it takes, in the order of the commands."""
        try:
            async with asyncio.timeout(2 * self._timeout):
                if self._doubted:
                    self._doubted = False
                    await self._look()
                return await self._routed(commands)
        except TimeoutError as error:
            raise StoreUnavailable from error

    def slot(self, key: str) -> int:
        """The key's slot in the cluster."""
        return slot_of_key(key)

    def post(self, key: str, command: Command, answered: Callable[[Answer], None]) -> bool:
        """As `Commands` says, to the node that has the key."""

        def checked(answer: Answer) -> None:
            self._doubted |= isinstance(answer, BROKEN) or is_elsewhere(answer)
            answered(answer)

        node = self._map.owner(key)
        return node in self._connections and self._connections[node].post(key, command, checked)

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """As `Commands` says."""
        groups: dict[Node | None, list[str]] = {}
        for key in keys:
            groups.setdefault(self._map.owner(key), []).append(key)
        return list(groups.values())

    async def nodes(self) -> Sequence[Commands]:
        """A connection to each node that has slots now."""
        return [self._connection(node) for node in self._map.nodes]

    async def close(self) -> None:
        """Close the connections to all nodes."""
        self._closed = True
        connections, self._connections = self._connections, {}
        await asyncio.gather(*(connection.close() for connection in connections.values()))

    def place(self) -> Place:
        """A server to subscribe at, perhaps another one each time."""
        node = random.choice([None, *self._map.nodes])
        return self._place if node is None else self._place.at(*node)

    async def learn(self, ranges: list[Answer], asked: str = "") -> None:
        """Take over the map that the host `asked` has answered; empty: the host in the URL.

        Connections to nodes without slots are closed. Raises StoreUnavailable where no node has slots.
        """
        before = set(self._map.nodes)
        self._map.learn(ranges, asked or self._host)
        if set(self._map.nodes) != before:
            _log.info("%s: a cluster of %d nodes", self._name, len(self._map.nodes))
        gone = [self._connections.pop(node) for node in self._connections.keys() - set(self._map.nodes)]
        await asyncio.gather(*(connection.close() for connection in gone))
        await self._seed.let_go("not needed")  # it was only needed for the map
        if not self._map.nodes:
            raise StoreUnavailable("the cluster has no slots yet")

    async def _look(self, doubted: Collection[Node | None] = ()) -> None:
        """Ask for the map again, unless that was done just now. Nodes in doubt are asked last."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at < REFRESH_SECONDS:
                return
            nodes = random.sample(self._map.nodes, len(self._map.nodes))
            for node in sorted(nodes, key=lambda node: node in doubted):
                if await self._look_at(self._connection(node), node.host):
                    break
            else:
                await self._look_at(self._seed, self._host)
            self._asked_at = loop.time()

    async def _look_at(self, server: Connection, asked: str) -> bool:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                [ranges] = await server.answers([("CLUSTER", "SLOTS")])
        except (StoreUnavailable, TimeoutError):
            return False
        if not isinstance(ranges, list) or not ranges:
            return False
        await self.learn(ranges, asked)
        return True

    async def _routed(self, commands: list[Command]) -> list[Answer]:
        answers: list[Answer] = [None] * len(commands)
        aims = self._aims(commands)
        for _ in range(MOST_ROUNDS):
            await self._send(commands, aims, answers)
            aims = await self._again(commands, aims, answers)
            if not aims:
                break
        return answers

    def _aims(self, commands: list[Command]) -> dict[int, Aim]:
        """The node of each command's key. A command without a key (TIME) goes with the next that has one."""
        aims: dict[int, Aim] = {}
        node: Node | None = random.choice(self._map.nodes)
        for number in range(len(commands) - 1, -1, -1):
            if (key := key_of(commands[number])) is not None:
                node = self._map.owner(key)
            aims[number] = Aim(node)
        return dict(reversed(aims.items()))

    async def _send(self, commands: list[Command], aims: dict[int, Aim], answers: list[Answer]) -> None:
        """Send each node its commands together. An answer is what came, or the error why nothing came."""
        shares: dict[Node | None, list[int]] = {}
        for number, aim in aims.items():
            shares.setdefault(aim.node, []).append(number)

        async def share(node: Node | None, numbers: list[int]) -> None:
            sent: list[Command] = []
            for number in numbers:
                sent += [("ASKING",), commands[number]] if aims[number].asking else [commands[number]]
            try:
                if node is None:
                    raise StoreUnavailable("no node has this slot")
                got = await self._connection(node).answers(sent)
            except StoreUnavailable as error:
                got = [error] * len(sent)
            kept = [one for command, one in zip(sent, got, strict=True) if command != ("ASKING",)]
            for number, answer in zip(numbers, kept, strict=True):
                answers[number] = answer

        await asyncio.gather(*(share(node, numbers) for node, numbers in shares.items()))

    async def _again(
        self, commands: list[Command], aims: dict[int, Aim], answers: list[Answer]
    ) -> dict[int, Aim]:
        """Which commands to send once more, and to which nodes."""
        if any(isinstance(answers[number], MovedError) or _is_away(answers[number]) for number in aims):
            await self._look({aim.node for number, aim in aims.items() if _is_away(answers[number])})
        again: dict[int, Aim] = {}
        for number, aim in aims.items():
            answer = answers[number]
            if isinstance(answer, AskError):  # MovedError is a subclass
                host = answer.host or (aim.node.host if aim.node else self._host)
                node = self._map.at(host, answer.port)
                moved = isinstance(answer, MovedError)
                if moved:
                    self._map.moved(answer.slot_id, node)
                again[number] = Aim(node, asking=not moved)
            elif _is_away(answer):
                key = key_of(commands[number])
                others = [node for node in self._map.nodes if node != aim.node]
                now = self._map.owner(key) if key is not None else random.choice(others or [aim.node])
                if now != aim.node:
                    again[number] = Aim(now)
        return again

    def _connection(self, node: Node) -> Connection:
        if self._closed:
            raise StoreUnavailable
        if node not in self._connections:
            self._connections[node] = Connection(
                self._place.at(*node), name=self._name, timeout=self._timeout
            )
        return self._connections[node]


def _is_away(answer: Answer) -> bool:
    """Whether a node has not answered, or has said that another node may have its slots."""
    return isinstance(answer, StoreUnavailable | ClusterDownError) or is_elsewhere(answer)
