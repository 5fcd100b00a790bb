"""The format that docs/formats.md shows is one: it is taken from there, and served."""

from __future__ import annotations

import re
import types
from pathlib import Path

import httpx
import pytest

from gateway.asgi import ROUTES, app
from gateway.gateway import Gateway
from gateway.settings import Settings
from tests.hosts import Host
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
    gateway = Gateway(Settings(redis_url=store.url), {"chat": ["chat"]})
    routes = (*ROUTES, *((route.method, route.path, route.handler) for route in module.ROUTES))
    transport = httpx.ASGITransport(app(gateway, routes))
    async with httpx.AsyncClient(base_url="http://gateway", transport=transport) as http:
        answer = await http.get(where.replace("/stream/", "/plain/"))
    await gateway.close()
    assert answer.text == 'data: "a"\n\ndata: "b\\n"\n\ndata: [DONE]\n\n'
