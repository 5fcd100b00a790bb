"""Fault 27: no secret and no question appears in a log line, an error, exported data, or printed output."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from gateway.cli import commands
from gateway.settings import Settings
from tests.callers import ALICE, BOB, CANARY, METRICS_KEY, TOKEN_KEYS, Guarded, by_key, common, running
from tests.hosts import EVENTS, HOST_NAMES, JSON, NOBODY
from tests.support.collector import Collector
from tests.support.issuer import Issuer
from tests.support.model_server import ModelServer, script
from tests.support.redis_server import RedisServer

NEWEST = 10  # Number of streams to inspect. It is more than this test makes.

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(slots=True)
class Caller:
    """A caller that sends every kind of request, and stores the answers that must not contain a secret."""

    host: Guarded
    known: dict[str, str]  # Headers of an allowed caller. Empty if everybody is allowed.
    unknown: list[dict[str, str]]  # Headers of callers that are not allowed.
    told: list[httpx.Response] = field(default_factory=list)

    async def asks(self, trace: str) -> list[str]:
        """Send the requests and return the stream tokens that the gateway issued."""
        http, known = self.host.http, self.known
        caller = {**known, "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        body = {"user": script(["a"], canary=CANARY), "metadata": {"m": CANARY}}
        where = (await http.post("/stream", json=body, headers=caller)).headers["location"]
        given = (await http.post(f"{where}/token", headers=known)).json()
        token = str(given["token"])
        for accept in (EVENTS, JSON):
            assert (await http.get(given["stream"], headers=accept)).status_code == 200
        failing = {"user": script([CANARY], status=400, canary=CANARY)}
        broken = {"user": script(["a"], broken_at=0, canary=CANARY)}
        for question in (failing, broken):
            answer = await http.post("/stream", json=question, headers={**known, **EVENTS})
            assert b"event: failed" in answer.content
            self.told.append(answer)
        urls = [
            *([where] if self.unknown else []),
            f"{where}?token={token}x",
            f"/stream/{NOBODY}?token={token}",
            f"/{CANARY}?token={token}",
        ]
        self.told += [await http.get(url, headers=JSON) for url in urls]
        if self.unknown:
            self.told += [await http.delete(f"{where}?token={token}")]
        self.told += [await http.get(where, headers=unknown) for unknown in self.unknown]
        self.told += [await http.get(where, headers={**known, "last-event-id": CANARY})]
        self.told += [await http.get(where, headers={**known, "accept": f"text/{CANARY}"})]
        wrong: list[dict[str, object]] = [
            {"user": CANARY, "more": CANARY},
            {"input": {CANARY: 1}, "chain": CANARY},
        ]
        self.told += [await http.post("/stream", json=item, headers=known) for item in wrong]
        self.told += [
            await http.post("/stream", json=body, headers={**known, "idempotency-key": CANARY * 30})
        ]
        spoiled = {**known, "content-type": "application/json"}
        self.told += [await http.post("/stream", content=f'{{"user": "{CANARY}'.encode(), headers=spoiled)]
        await http.delete(where, headers=known)
        return [token]


async def holds_its_tongue(caller: Caller, collector: Collector, secrets: list[str], trace: str) -> None:
    """Check that no secret and no content can be found in logs, answers, exports or printed output."""
    tokens = [token.partition(".")[2] for token in await caller.asks(trace)]
    await collector.until_spans(trace, {"create stream", "process holdfast-jobs"})
    hidden = [CANARY, *secrets, *tokens]
    metrics = await caller.host.http.get("/metrics", headers=by_key(METRICS_KEY))
    assert "holdfast_streams_started_total{" in metrics.text
    wrong = await caller.host.http.get("/metrics", headers={**by_key(CANARY), **caller.known})
    assert wrong.status_code == 401
    caller.told.append(wrong)
    printed = metrics.text + await looked_at(caller.host)
    log = caller.host.log()
    assert "Traceback" not in log
    for secret in hidden:
        assert not [line for line in log.splitlines() if secret in line]
        assert secret not in printed
        shown = [answer.text + str(answer.headers) for answer in caller.told]
        assert not [text for text in shown if secret in text]
        assert not any(secret.encode() in raw for raw in collector.raw)
    assert all(answer.status_code >= 400 or b"event: failed" in answer.content for answer in caller.told)


async def looked_at(host: Guarded) -> str:
    """Return all that `ls`, and `inspect` of the newest streams, print without --content."""
    listed = await command(host, "ls", "--json", "--limit", "10000")
    printed = listed + await command(host, "ls")
    streams = sorted(json.loads(listed)["streams"], key=lambda stream: str(stream["created_at"]))
    content = ""
    for stream in streams[-NEWEST:]:
        for form in ([], ["--json"]):
            told = await command(host, "inspect", stream["id"], *form)
            assert stream["id"] in told
            printed += told
        content += await command(host, "inspect", stream["id"], "--content")
    assert CANARY in content  # This proves that the store has content to hide.
    return printed


async def command(host: Guarded, *arguments: str) -> str:
    """Return what `python -m gateway` prints for these arguments."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        given = commands.parser().parse_args(arguments)
        assert await commands.look(Settings(redis_url=host.store_url), given) == 0
    return printed.getvalue()


def unknown(key: str) -> list[dict[str, str]]:
    """Return the headers of callers with a wrong key."""
    return [by_key(f"{key}x"), {"x-api-key": f"{key}x"}]


async def test_fault_27_with_api_keys(guarded: Guarded, collector: Collector) -> None:
    trace = os.urandom(16).hex()
    secrets = [ALICE, BOB, *TOKEN_KEYS]
    caller = Caller(guarded, by_key(ALICE), unknown(ALICE))
    await holds_its_tongue(caller, collector, secrets, trace)


async def test_fault_27_with_jwts(trusting: Guarded, collector: Collector, issuer: Issuer) -> None:
    trace = os.urandom(16).hex()
    token = issuer.sign("rsa", sub="carol", note=CANARY)
    _, claims, signature = token.split(".")
    caller = Caller(trusting, by_key(token), unknown(token))
    await holds_its_tongue(caller, collector, [claims, signature, *TOKEN_KEYS], trace)


@pytest.mark.parametrize("name", HOST_NAMES)
async def test_fault_27_with_the_platforms_sign_in(
    name: str, model: ModelServer, collector: Collector, deployed: Path
) -> None:
    """The headers are all those that App Service adds about a signed-in caller.

    The principal id is the owner, and logs may name the owner.
    """
    secret = base64.b64encode(json.dumps({"claims": [{"typ": "oid", "val": CANARY}]}).encode()).decode()
    known = {
        "x-ms-client-principal-id": "of-carol",
        "x-ms-client-principal-name": f"{CANARY}@example.com",
        "x-ms-client-principal-idp": "aad",
        "x-ms-client-principal": secret,
        "x-ms-token-aad-access-token": f"{CANARY}-access",
    }
    signed_in = {"GATEWAY_AUTH": "easyauth", "WEBSITE_AUTH_ENABLED": "True", "GATEWAY_CHAIN_CLAIMS": "oid"}
    settings = common(collector) | signed_in
    async with RedisServer() as store, running(name, model, store, deployed, settings) as host:
        caller = Caller(host, known, [{"x-ms-client-principal": secret}, by_key("of-carol")])
        await holds_its_tongue(caller, collector, [secret, *TOKEN_KEYS], os.urandom(16).hex())


@pytest.mark.parametrize("name", HOST_NAMES)
async def test_fault_27_where_nobody_is_asked(
    name: str, model: ModelServer, collector: Collector, deployed: Path
) -> None:
    """The setting differs from development, where the text of a chain's exceptions is shown."""
    quiet = {"GATEWAY_AUTH": "none", "FUNCTIONS_HOST_KEY": "", "GATEWAY_DEVELOPMENT": "no"}
    settings = common(collector) | quiet
    async with RedisServer() as store, running(name, model, store, deployed, settings) as host:
        await holds_its_tongue(Caller(host, {}, []), collector, TOKEN_KEYS, os.urandom(16).hex())


async def test_fault_27_the_logs_that_were_searched_are_logs(
    keyed: dict[str, Guarded], signed: dict[str, Guarded]
) -> None:
    """The logs are at level `debug`, so a missing secret was never logged at any level.

    One host logs text, the other JSON.
    """
    assert " DEBUG openai" in keyed["uvicorn"].log()
    lines = [json.loads(line) for line in signed["uvicorn"].log().splitlines()]
    assert any(line["level"] == "debug" and line["logger"].startswith("openai") for line in lines)
    for host in (keyed["uvicorn"], signed["uvicorn"]):
        assert "access" not in host.log()
    for host in (*keyed.values(), *signed.values()):
        assert all(f"holdfast.{kind}" in host.log() for kind in ("request", "attempt"))
