"""Commands to Redis, whether the URL leads to a single server or to a cluster.

At its first call, `Router` finds out which of the two it is. From then on it passes all calls to one
`Connection` or to one `Cluster`. A cluster has one pipelined connection to each node; a call for several
nodes goes to all of them at once. A slot that moves is followed (MOVED, ASK). When a node is out of reach,
only its own commands fail.

Nodes announce their addresses. Over TLS, a node's certificate is checked for the host name that the node
announces, or else for the host name in the URL. A subscriber may subscribe at any node, because a cluster
passes publishes on to all nodes.
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

# How often a command is sent on to another node. After this many times, the cluster does not know its own
# slot map.
MOST_ROUNDS = 5
REFRESH_SECONDS = 1.0  # shortest time between two requests for the slot map
ASK_SECONDS = 1.0  # time limit for one node to send the slot map
_log = logging.getLogger("holdfast.cluster")


class Aim(NamedTuple):
    """The next node for a command.

    `asking`: the command's slot is being moved to that node, so ASKING is sent before the command.
    """

    node: Node | None
    asking: bool = False


class Router(Commands):
    """Commands to the server at the URL: a single server or a cluster, found out at the first call."""

    def __init__(self, where: str | Place, *, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._place = place_of(where)
        self._server = Connection(self._place, name=name, timeout=timeout)
        self._cluster = Cluster(self._place, self._server, name=name, timeout=timeout)
        self._chosen: Connection | Cluster | None = None
        if self._place.url.startswith("unix://"):
            self._chosen = self._server
        self._choosing = asyncio.Lock()
        self._failed = 0  # how often it could not be found out whether the URL is a cluster

    async def answers(self, commands: list[Command]) -> list[Answer]:
        """Do what `Commands.answers` says, at the server or at the nodes."""
        if not commands:
            return []
        return await (self._chosen or await self._choose()).answers(commands)

    def slot(self, key: str) -> int:
        """Return the key's slot.

        Until it is known whether the URL is a cluster, return the slot in a cluster.
        """
        return slot_of_key(key) if self._chosen is None else self._chosen.slot(key)

    def post(self, key: str, command: Command, answered: Callable[[Answer], None]) -> bool:
        """Do what `Commands.post` says.

        Also returns False until it is known whether the URL is a cluster.
        """
        return self._chosen is not None and self._chosen.post(key, command, answered)

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """Do what `Commands.by_node` says."""
        if not keys:
            return []
        return await (self._chosen or await self._choose()).by_node(keys)

    async def nodes(self) -> Sequence[Commands]:
        """Do what `Commands.nodes` says."""
        return await (self._chosen or await self._choose()).nodes()

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(self._server.close(), self._cluster.close())

    def place(self) -> Place:
        """Return a server to subscribe at. In a cluster this may be another node each time."""
        return self._cluster.place() if self._chosen is self._cluster else self._place

    def on_moved(self, moved: Callable[[], None]) -> None:
        """Set a function to call when a single server has lost the primary role and another was found."""
        self._server.moved = moved

    async def _choose(self) -> Connection | Cluster:
        """Find out whether the URL is a cluster.

        One request serves all calls that wait for it, even if it fails.
        """
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
        # This may be permanent, so a single server is used without this answer.
        if is_forbidden(ranges):
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

    `seed` is a connection to the address in the URL. It is asked for the slot map at first, and whenever no
    node answers.
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
        self._asked_at = float("-inf")  # when the map was last requested
        # A node has not answered, so another node may have its slots.
        self._doubted = False
        self._closed = False

    async def answers(self, commands: list[Command]) -> list[Answer]:
        """Do what `Commands.answers` says.

        The commands go to as many nodes as necessary. The answers are in the order of the commands.
        """
        try:
            async with asyncio.timeout(2 * self._timeout):
                if self._doubted:
                    self._doubted = False
                    await self._look()
                return await self._routed(commands)
        except TimeoutError as error:
            raise StoreUnavailable from error

    def slot(self, key: str) -> int:
        """Return the key's slot in the cluster."""
        return slot_of_key(key)

    def post(self, key: str, command: Command, answered: Callable[[Answer], None]) -> bool:
        """Do what `Commands.post` says, at the node that has the key."""

        def checked(answer: Answer) -> None:
            self._doubted |= isinstance(answer, BROKEN) or is_elsewhere(answer)
            answered(answer)

        node = self._map.owner(key)
        return node in self._connections and self._connections[node].post(key, command, checked)

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """Do what `Commands.by_node` says."""
        groups: dict[Node | None, list[str]] = {}
        for key in keys:
            groups.setdefault(self._map.owner(key), []).append(key)
        return list(groups.values())

    async def nodes(self) -> Sequence[Commands]:
        """Return a connection to each node that has slots now."""
        return [self._connection(node) for node in self._map.nodes]

    async def close(self) -> None:
        """Close the connections to all nodes."""
        self._closed = True
        connections, self._connections = self._connections, {}
        await asyncio.gather(*(connection.close() for connection in connections.values()))

    def place(self) -> Place:
        """Return a server to subscribe at. It may be another one each time."""
        node = random.choice([None, *self._map.nodes])
        return self._place if node is None else self._place.at(*node)

    async def learn(self, ranges: list[Answer], asked: str = "") -> None:
        """Take over the slot map that the host `asked` has sent. An empty `asked` is the host in the URL.

        Connections to nodes without slots are closed. Raises StoreUnavailable if no node has slots.
        """
        before = set(self._map.nodes)
        self._map.learn(ranges, asked or self._host)
        if set(self._map.nodes) != before:
            _log.info("%s: a cluster of %d nodes", self._name, len(self._map.nodes))
        gone = [self._connections.pop(node) for node in self._connections.keys() - set(self._map.nodes)]
        await asyncio.gather(*(connection.close() for connection in gone))
        await self._seed.let_go("not needed")  # this connection was only needed for the map
        if not self._map.nodes:
            raise StoreUnavailable("the cluster has no slots yet")

    async def _look(self, doubted: Collection[Node | None] = ()) -> None:
        """Request the slot map again, unless that was done just now.

        Nodes in `doubted` are asked last.
        """
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
        """Return the next node of each command, by its key.

        A command without a key (TIME) goes with the next command that has a key.
        """
        aims: dict[int, Aim] = {}
        node: Node | None = random.choice(self._map.nodes)
        for number in range(len(commands) - 1, -1, -1):
            if (key := key_of(commands[number])) is not None:
                node = self._map.owner(key)
            aims[number] = Aim(node)
        return dict(reversed(aims.items()))

    async def _send(self, commands: list[Command], aims: dict[int, Aim], answers: list[Answer]) -> None:
        """Send the commands of each node together.

        The answer of a command is the server's answer, or the error that prevented an answer.
        """
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
        """Return the commands that must be sent again, and their nodes."""
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
