"""A page of another origin uses the app on Azure Functions, in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.hosts import functions_host
from tests.support.model_server import ModelServer, script
from tests.support.person import browser, visit
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.functions, pytest.mark.slow]

KEY = "function-key"
PAGE = b"<!doctype html><link rel=icon href=data:,><title>elsewhere</title>"
TEMPLATE = (REPOSITORY / "infra" / "modules" / "functions.bicep").read_text()
CORS = re.compile(
    r"^      cors: \{\n +allowedOrigins: (.+)\n +supportCredentials: (.+)\n      \}\n", re.MULTILINE
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
# The script starts a stream, reads its first event, cancels it, and reads the rest by cursor. It returns what
# it received.
ASKS = """(async ([gateway, key, body]) => {
  const known = { "x-functions-key": key };
  const started = await fetch(`${gateway}/stream`, { method: "POST", body, headers: { ...known,
     "content-type": "application/json", "idempotency-key": "of-the-page" } });
  const where = gateway + started.headers.get("location");
  const source = new EventSource(where);
  const first = await new Promise((told) => source.addEventListener("message", told, { once: true }));
  source.close();
  const ended = await fetch(where, { method: "DELETE", headers: known });
  const headers = { accept: "text/event-stream", "last-event-id": first.lastEventId };
  const rest = await fetch(where, { headers });
  const said = JSON.parse(first.data).delta_content;
  return [started.status, said, (await ended.json()).status, await rest.text()];
})(%s)"""
REFUSED = """fetch(%s, { method: "POST", body: "{}",
  headers: { "content-type": "application/json" } }).then(() => "answered", () => "refused")"""


def policy(origins: str) -> dict[str, str]:
    """Return the settings that the platform gives its host for a value of `corsOrigins`.

    They come from `siteConfig.cors` of the template. Without this property no origin is allowed. Raises
    KeyError for an expression that is not listed below.
    """
    listed, credentials = found.groups() if (found := CORS.search(TEMPLATE)) else ("[]", "false")
    values: dict[str, object] = {
        "[]": [],
        "false": False,
        "empty(corsOrigins) ? [] : split(corsOrigins, ' ')": origins.split(" ") if origins else [],
        "!empty(corsOrigins)": bool(origins),
    }
    return {
        "CORS_ALLOWED_ORIGINS": json.dumps(values[listed]),
        "CORS_SUPPORT_CREDENTIALS": json.dumps(values[credentials]),
    }


@asynccontextmanager
async def elsewhere() -> AsyncIterator[str]:
    """Run a server for a page of another origin, and yield that origin."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD % len(PAGE) + PAGE)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_page_of_another_origin_posts_follows_and_deletes(model: ModelServer) -> None:
    async with RedisServer() as store, elsewhere() as origin, elsewhere() as stranger, browser() as driver:
        settings = {"GATEWAY_CORS_ORIGINS": origin, "FUNCTIONS_HOST_KEY": KEY}
        async with functions_host(
            model, store.url, app=REPOSITORY, listen=True, **settings, **policy(origin)
        ) as host:
            gateway = str(host.http.base_url).rstrip("/")
            body = json.dumps({"user": script(["a", "b"], gate="of the page", gate_at=1)})
            async with visit(driver, origin) as person:
                seen = await person.does("run", ASKS % json.dumps([gateway, KEY, body]))
            assert seen[:3] == [202, "a", "cancelled"]
            assert "event: cancelled" in seen[3]
            async with visit(driver, stranger) as person:
                assert await person.does("run", REFUSED % json.dumps(f"{gateway}/stream")) == "refused"
                complaints = " ".join(await person.does("complaints"))
                assert "Response to preflight request doesn't pass access control check" in complaints
                person.may_complain = f"{gateway}/stream"
    model.open_gate("of the page")
