"""The README's programs, run as they are printed, one behind the other; what is not run says so."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.processes import GatewayProcess
from tests.test_first_run import whole_frames

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"^```(\w+)( fragment)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BOUND_SECONDS = 120


def printed(language: str) -> list[str]:
    """The programs in this language, as they are printed."""
    return [code for name, fragment, code in FENCE.findall(README) if name == language and not fragment]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    """What `make run` serves where nothing is configured, but for the packaged model."""
    environment = {"OPENAI_API_KEY": "x", "GATEWAY_DEFAULT_CHAIN": "demo"}
    async with GatewayProcess("all", environment) as process:
        yield process.url


async def ran(url: str, folder: Path, *command: str) -> bytes:
    """What a program prints. Raises AssertionError for any exit code but 0."""
    environment = {"PATH": os.environ["PATH"], "GATEWAY_URL": url, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(BOUND_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_its_shell_blocks_cut_a_stream_and_resume_it(url: str, tmp_path: Path) -> None:
    """One bash, which nobody types into, runs all blocks."""
    await ran(url, tmp_path, "bash", "-c", "\n".join(printed("sh")))
    first, rest = (tmp_path / "first.txt").read_bytes(), (tmp_path / "rest.txt").read_bytes()
    assert b"event: done" not in first
    assert b"event: done" in rest
    [stream_id] = re.findall(rb'^data: \{"id":"([^"]+)"', first, re.MULTILINE)
    log = await ran(url, tmp_path, "curl", "-sN", f"{url}/stream/{stream_id.decode()}")
    assert whole_frames(first) + whole_frames(rest) == whole_frames(log)
    assert whole_frames(first)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_its_python_program_prints_an_answer(url: str, tmp_path: Path) -> None:
    [program] = printed("python")
    (tmp_path / "program.py").write_text(program)
    said = (await ran(url, tmp_path, sys.executable, "program.py")).decode()
    assert said.startswith("**This answer is scripted.**")
    assert said.endswith("ask again, and break it earlier.\n")


async def test_each_program_is_run_here_or_is_called_a_fragment() -> None:
    fences = re.findall(r"^```(.+)$", README, re.MULTILINE)
    assert {fence for fence in fences if not fence.endswith(" fragment")} == {"sh", "python"}
    assert len(fences) == README.count("\n```\n")  # none is without a language
    assert all((ROOT / file).is_file() for file in re.findall(r"\]\(([\w./-]+)", README))


async def test_what_a_newcomer_needs_stands_near_the_top() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    assert "No reader loses a word when a connection is cut" in "\n".join(lines[:6])
    assert lines.index("## A project of your own") < lines.index("## In a Functions app that you have") < 60
    assert any("Nothing was deployed to Azure" in line for line in lines[:20])
    assert any("make run" in line for line in lines[:60])
