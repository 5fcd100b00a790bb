"""What tests' gateways are forked from has their imports already: each would pay for them again."""

from __future__ import annotations

import json
import os
import tempfile

from tests.support import forked
from tests.support.processes import REPOSITORY

# Not deployed on Azure Functions, whose hosts are forked from there as well; and who imports them.
LEFT = {
    "gateway.hosts.door",
    "gateway.hosts.given",
    "gateway.hosts.http10",
    "gateway.hosts.uvicorn_protocol",
    "gateway.process",
}
FOREIGN = {"httptools", "uvicorn", "uvloop"}


async def test_a_forked_gateway_imports_no_more_than_what_only_uvicorn_has() -> None:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    process = await forked.start(
        "tests.support.imports_left",
        environment={"PATH": os.environ["PATH"]},
        cwd=REPOSITORY,
        stderr=errors,
    )
    assert isinstance(process, forked.Forked)
    try:
        left = json.loads(await process.stdout.readline())
        assert await process.wait() == 0
    finally:
        process.close()
        errors.close()
    assert {name for name in left if name.partition(".")[0] not in FOREIGN} == LEFT
    assert "httptools" in left
