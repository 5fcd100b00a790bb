"""A short run on both hosts: no 5xx, and every answer matches the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.callers import Guarded
from tests.contract.run import OWNERS, schemathesis
from tests.hosts import HOST_NAMES

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow, pytest.mark.timeout(400)]

EXAMPLES = {"uvicorn": 2, "functions": 2}  # for each operation; `coverage` has its own list of cases
# A request takes ten times as long on the Functions host, so only `make contract` runs `coverage` there.
PHASES = {"uvicorn": "examples,coverage,fuzzing,stateful", "functions": "examples,fuzzing,stateful"}
LEAST_CASES = {"uvicorn": 300, "functions": 50}
LIMIT_SECONDS = 300  # enough for a busy machine


@pytest.mark.parametrize("name", HOST_NAMES)
async def test_every_answer_is_as_the_document_says(
    keyed: dict[str, Guarded], name: str, tmp_path: Path
) -> None:
    report = await schemathesis(
        str(keyed[name].http.base_url).rstrip("/"),
        tmp_path,
        callers=OWNERS,
        examples=EXAMPLES[name],
        seed=1,
        limit_seconds=LIMIT_SECONDS,
        phases=PHASES[name],
    )
    assert report.failures == 0, report.printed
    assert report.code == 0, report.printed
    assert report.cases > LEAST_CASES[name]
