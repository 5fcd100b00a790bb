"""docs/formats.md on all formats: the example format is served, and every connection sends heartbeats."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

from gateway.hosts.asgi import ROUTES
from gateway.settings import Settings
from tests.hosts import Host, within
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts", "tests.mortals")
pytestmark = pytest.mark.asyncio(loop_scope="session")
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "formats.md"


async def test_the_documents_format_serves_a_stream(hosts: dict[str, Host], store: RedisServer) -> None:
    where, _ = await hosts["uvicorn"].finished(["a", "b\n"])
    [code] = re.findall(r"## Adding one\n.*?```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 20
    module = types.ModuleType("plain")
    exec(code, module.__dict__)
    routes = (*ROUTES, *((route.method, route.path, route.handler) for route in module.ROUTES))
    async with within(Settings(redis_url=store.url), routes) as http:
        answer = await http.get(where.replace("/stream/", "/plain/"))
    assert answer.text == 'data: "a"\n\ndata: "b\\n"\n\ndata: [DONE]\n\n'


async def test_where_a_format_shows_nothing_of_what_the_log_says_there_are_heartbeats(
    hosts: dict[str, Host], store: RedisServer
) -> None:
    where, _ = await hosts["uvicorn"].finished(["x" * 10_000] * 20)  # Several pieces of the log.
    run = where.replace("/stream/", "/threads/t/runs/")
    always = Settings(redis_url=store.url, heartbeat=1e-9)
    async with within(always) as http, within(Settings(redis_url=store.url)) as patient:
        for path, beat in ((f"{run}/stream?last_event_id=-1", ":\n"), (f"{run}/join", "\n")):
            often, seldom = await http.get(path), await patient.get(path)
            assert often.text.replace(beat, "") == seldom.text.replace(beat, "")
            assert often.text.count(beat) > seldom.text.count(beat)
