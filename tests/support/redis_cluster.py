"""A real Redis cluster for one test: several masters share the slots. Each is a process. They have no
replicas."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from tests.support.redis_server import START_SECONDS, free_port, tls_options

NODE_TIMEOUT_MS = 1000


class ClusterNode:
    """One redis-server. `client` is the test's own connection to it; `id` is its id in the cluster."""

    def __init__(self, *options: str, tls: Path | None = None, host: str = "127.0.0.1") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="holdfast-node-"))
        self.port = free_port()
        self._socket = self.directory / "redis.sock"
        self.client = Redis.from_url(f"unix://{self._socket}", retry=None)
        self.id = ""
        self._options, self._tls = options, tls
        self.url = f"redis://{host}:{self.port}/0"
        if tls is not None:
            self.url = f"rediss://{host}:{self.port}/0?ssl_ca_certs={tls / 'authority.pem'}"

    async def start(self) -> None:
        """Start the node. It can be started again after `kill`."""
        ports = ["--port", str(self.port)]
        if self._tls is not None:
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-cluster", "yes"]
            ports += tls_options(self._tls)
        program = shutil.which("redis-server")
        assert program, "the tests need a redis-server; `make setup` installs one"
        self._process = await asyncio.create_subprocess_exec(
            *(program, *ports, "--bind", "127.0.0.1", "--unixsocket", str(self._socket), "--save", ""),
            *("--dir", str(self.directory), "--appendonly", "yes", "--cluster-enabled", "yes"),
            *("--appendfsync", "no"),  # written data survives a kill; a slow sync would delay answers
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-require-full-coverage", "no"),
            *self._options,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await eventually(self._answers)
        self.id = (await self.client.execute_command("CLUSTER", "MYID")).decode()

    async def kill(self) -> None:
        """Send SIGKILL to the process."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop the node and remove its directory."""
        await self.client.aclose()
        await self._end(signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)

    async def call(self, *command: str | int) -> Any:
        """Send a command to this node only."""
        return await self.client.execute_command(*command)

    async def serve(self, first: int, last: int) -> None:
        """Assign these slots to the node. `CLUSTER ADDSLOTSRANGE` would be shorter, but Redis 6.2 does not
        have it."""
        await self.call("CLUSTER", "ADDSLOTS", *range(first, last + 1))

    async def said(self, error: str) -> int:
        """Return how many times the node has answered with this error."""
        stats: dict[str, Any] = await self.client.info("errorstats")
        return int(stats.get(f"errorstat_{error}", {}).get("count", 0))

    async def names(self) -> list[str]:
        """Return the client names of the node's connections."""
        return [client["name"] for client in await self.client.client_list()]

    async def _end(self, number: int) -> None:
        if self._process.returncode is None:
            os.kill(self._process.pid, number)
            await self._process.wait()

    async def _answers(self) -> bool:
        try:
            return bool(await self.client.ping())
        except (RedisError, OSError):
            return False


class RedisCluster:
    """`async with RedisCluster() as cluster`; then `cluster.url`, `cluster.nodes`."""

    def __init__(
        self, *options: str, masters: int = 3, tls: Path | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.nodes = [ClusterNode(*options, tls=tls, host=host) for _ in range(masters)]
        self._options = options

    @property
    def url(self) -> str:
        """Return the URL of the first node."""
        return self.nodes[0].url

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(node.start() for node in self.nodes))
        share = REDIS_CLUSTER_HASH_SLOTS / len(self.nodes)
        for number, node in enumerate(self.nodes):
            first, last = round(number * share), round((number + 1) * share) - 1
            await node.serve(first, last)
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            await self.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port)
        await eventually(self.whole)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def whole(self) -> bool:
        """Return whether every node knows the owner of every slot."""
        for node in self.nodes:
            raw = (await node.call("CLUSTER", "INFO")).decode()
            told = dict(line.split(":") for line in raw.split())
            if told["cluster_state"] != "ok" or int(told["cluster_known_nodes"]) < len(self.nodes):
                return False
            if int(told["cluster_slots_ok"]) < REDIS_CLUSTER_HASH_SLOTS:
                return False
        return True

    async def replicate(self, master: ClusterNode) -> ClusterNode:
        """Add a node that is a replica of this master and can take over from it."""
        replica = ClusterNode(*self._options)
        await replica.start()
        self.nodes.append(replica)
        await replica.call("CLUSTER", "MEET", "127.0.0.1", master.port)

        async def met() -> bool:
            return master.id in (await replica.call("CLUSTER", "NODES")).decode()

        await eventually(met)
        await replica.call("CLUSTER", "REPLICATE", master.id)

        async def known() -> bool:
            """Return whether every node knows the replica: a node that does not know it does not vote for
            it."""
            told = [(await node.call("CLUSTER", "NODES")).decode() for node in self.nodes]
            lines = [line for text in told for line in text.splitlines() if line.startswith(replica.id)]
            return len(lines) == len(self.nodes) and all("slave" in line for line in lines)

        await eventually(known)
        await self.copied(master, replica)
        return replica

    async def copied(self, master: ClusterNode, replica: ClusterNode) -> None:
        """Wait until the replica has all data of the master."""

        async def synchronous() -> bool:
            theirs = await master.client.info("replication")
            own = await replica.client.info("replication")
            in_step = own["slave_repl_offset"] >= theirs["master_repl_offset"]
            return bool(own["master_link_status"] == "up" and in_step)

        await eventually(synchronous)

    def owner(self, key: str) -> ClusterNode:
        """Return the node that has a key before any slot is moved."""
        return self.nodes[key_slot(key.encode()) * 3 // REDIS_CLUSTER_HASH_SLOTS]

    async def begin_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Begin to move a slot. From now on the source answers ASK for keys that it does not have."""
        await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    async def move_keys(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Move all keys of the slot."""
        if keys := await source.call("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    async def end_move(self, slot: int, target: ClusterNode) -> None:
        """End the move of a slot. From now on the source answers MOVED."""
        for node in [target, *(node for node in self.nodes if node is not target)]:
            await node.call("CLUSTER", "SETSLOT", slot, "NODE", target.id)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll a condition that no event announces. Raises TimeoutError after 20 s."""
    async with asyncio.timeout(START_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
