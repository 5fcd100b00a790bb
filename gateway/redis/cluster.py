"""Commands to a Redis that may be a cluster: each goes to the node that has its key's slot.

Found out at the first call. A single server costs nothing from then on: its connection's own method stands in
for ours. Of a cluster every node has one pipelined connection, and what is asked of several goes to all at
once. A slot that moves is followed (MOVED, ASK); a node that is away fails its own commands alone.
Nodes announce addresses. Over TLS a certificate is checked for the host name that a node announces, or, where
it announces none, for the one in the URL. Any node will do to subscribe: a cluster hands publishes on to all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple
from urllib.parse import urlsplit

from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.connect import TIMEOUT_SECONDS, Place
from gateway.redis.connection import BROKEN, Connection
from gateway.redis.refusals import is_elsewhere, is_forbidden, is_unavailable, told_by_hello
from gateway.redis.replies import Answer
from gateway.redis.slots import Command, Map, Node, key_of, slot_of_key

MOST_ROUNDS = 5  # of sending a command on: more is a cluster that does not know itself
REFRESH_SECONDS = 1.0  # between two looks at the cluster's map
ASK_SECONDS = 1.0  # for one node to show it
_log = logging.getLogger("holdfast.cluster")


class Aim(NamedTuple):
    """Where a command goes next; `asking` while its slot is on the way there."""

    node: Node | None
    asking: bool = False


class Router(Connection):
    """A Connection to whatever is at the URL. In a cluster a call takes twice `timeout` seconds at most."""

    def __init__(self, where: str | Place, *, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        super().__init__(where, name=name, timeout=timeout)
        self._host = urlsplit(self._place.url).hostname or ""
        self._map = Map(self._host)
        self._single = False
        self._connections: dict[Node, Connection] = {}
        self._asking = asyncio.Lock()
        self._asked_at, self._failed_looks = float("-inf"), 0
        self._doubted = False  # a node has not answered: it may have a successor
        if self._place.url.startswith("unix://"):
            self._be_single()

    async def answers(self, commands: list[Command]) -> list[Answer]:
        """As Connection's, from as many nodes as it takes, in the order of the commands."""
        if not commands:
            return []
        await self._know()
        if self._single:
            return await super().answers(commands)
        try:
            async with asyncio.timeout(2 * self._timeout):
                if self._doubted:
                    self._doubted = False
                    await self._look()
                return await self._routed(commands)
        except TimeoutError as error:
            raise StoreUnavailable from error

    def slot(self, key: str) -> int:
        """In a cluster, the key's own."""
        return super().slot(key) if self._single else slot_of_key(key)

    def post(self, key: str, command: Command, heard: Callable[[Answer], None]) -> bool:
        """As Connection's, to the node that has the key; also False while it is not known which that is."""
        if self._single:
            return super().post(key, command, heard)

        def told(answer: Answer) -> None:
            self._doubted |= isinstance(answer, BROKEN) or is_elsewhere(answer)
            heard(answer)

        node = self._map.owner(key)
        return node in self._connections and self._connections[node].post(key, command, told)

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """These keys, apart by the node that has them now: each has its own clock, and its own faults."""
        if keys:
            await self._know()
        if self._single:
            return await super().by_node(keys)
        groups: dict[Node | None, list[str]] = {}
        for key in keys:
            groups.setdefault(self._map.owner(key), []).append(key)
        return list(groups.values())

    async def nodes(self) -> list[Connection]:
        """A connection to each node that has slots now."""
        await self._know()
        return [self._connection(node) for node in self._map.nodes] if not self._single else [self]

    def place(self) -> Place:
        """A server to subscribe at; another one, perhaps, each time."""
        node = random.choice([None, *self._map.nodes])
        return self._place if node is None else self._place.at(*node)

    async def close(self) -> None:
        """Close the connections to all nodes."""
        await super().close()
        connections, self._connections = self._connections, {}
        await asyncio.gather(*(connection.close() for connection in connections.values()))

    def _be_single(self) -> None:
        self._single = True
        self.answers = super().answers  # type: ignore[method-assign] # no detour from now on

    async def _know(self) -> None:
        """Find out whether it is a cluster. One look serves all who wait for it, also when it fails."""
        if self._single or self._map.nodes:
            return
        failed = self._failed_looks
        async with self._asking:
            if self._single or self._map.nodes:
                return
            if self._failed_looks != failed:
                raise StoreUnavailable
            try:
                await self._look_first()
            except StoreUnavailable:
                self._failed_looks += 1
                raise

    async def _look_first(self) -> None:
        [ranges] = await super().answers([("CLUSTER", "SLOTS")])
        if is_forbidden(ranges):  # for ever, perhaps: a single server is used without it
            [hello] = await super().answers([("HELLO",)])
            if told_by_hello(hello, b"mode") != b"cluster":
                self._be_single()
                return
        if not isinstance(ranges, ResponseError):
            await self._learn(ranges, self._host)
            if not self._map.nodes:
                raise StoreUnavailable("the cluster has no slots yet")
        elif is_unavailable(ranges):
            raise StoreUnavailable from ranges
        else:
            self._be_single()

    async def _learn(self, ranges: list[Answer], asked: str) -> None:
        """Take over the map, and let go of nodes that are no more."""
        before = set(self._map.nodes)
        self._map.learn(ranges, asked)
        if set(self._map.nodes) != before:
            _log.info("%s: a cluster of %d nodes", self._name, len(self._map.nodes))
        gone = [self._connections.pop(node) for node in self._connections.keys() - set(self._map.nodes)]
        await asyncio.gather(*(connection.close() for connection in gone))
        await self._let_go("not needed")  # it has shown the way, and is no node's

    async def _look(self, doubted: Collection[Node | None] = ()) -> None:
        """Ask for the map again, unless that has just been done; those whose word is in doubt come last."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at < REFRESH_SECONDS:
                return
            nodes = random.sample(self._map.nodes, len(self._map.nodes))
            for node in sorted(nodes, key=lambda node: node in doubted):
                if await self._look_at(self._connection(node).answers, node.host):
                    break
            else:
                await self._look_at(super().answers, self._host)
            self._asked_at = loop.time()

    async def _look_at(self, answers: Callable[[list[Command]], Awaitable[list[Answer]]], asked: str) -> bool:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                [ranges] = await answers([("CLUSTER", "SLOTS")])
        except (StoreUnavailable, TimeoutError):
            return False
        if not isinstance(ranges, list) or not ranges:
            return False
        await self._learn(ranges, asked)
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
        """By the key; what has none goes with the next that has one, for its clock's sake, or anywhere."""
        aims: dict[int, Aim] = {}
        node: Node | None = random.choice(self._map.nodes)
        for number in range(len(commands) - 1, -1, -1):
            if (key := key_of(commands[number])) is not None:
                node = self._map.owner(key)
            aims[number] = Aim(node)
        return dict(reversed(aims.items()))

    async def _send(self, commands: list[Command], aims: dict[int, Aim], answers: list[Answer]) -> None:
        """Each node's share in one go; an answer is what came, or why nothing did."""
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
        """What has to be sent once more, and where to. A node that is away may have a successor."""
        if any(isinstance(answers[number], MovedError) or _is_away(answers[number]) for number in aims):
            await self._look({aim.node for number, aim in aims.items() if _is_away(answers[number])})
        again: dict[int, Aim] = {}
        for number, aim in aims.items():
            answer = answers[number]
            if isinstance(answer, AskError):  # of which MovedError is one
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
    """Whether a node has not answered, or has said that others may have its slots by now."""
    return isinstance(answer, StoreUnavailable | ClusterDownError) or is_elsewhere(answer)
