"""Chains receive claims of a caller's sign-in.

They receive only those that the operator names, and only chains receive them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.datastructures import Headers

from gateway.callers.auth import EasyAuth, Keys, Open, auth_of
from gateway.callers.claims import MOST_BYTES, chosen, names_of
from gateway.protocol.errors import Forbidden, Unauthorized
from gateway.settings import Settings
from gateway.store.record import Record
from tests.callers import ALICE, TOKEN_KEYS, by_key, keys_file
from tests.hosts import EVENTS, JSON, Host, uvicorn_host
from tests.support.issuer import Issuer
from tests.support.model_server import ModelServer
from tests.support.redis_server import RedisServer
from workers.langchain.chunks import config_of
from workers.langchain.stage import Stage

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

CANARY = "canary-of-claims"
CHAINS = """
import json
from langchain_core.runnables import RunnableConfig, RunnableLambda
from workers.chains.registry import chain

@chain("claims")
def claims(settings):
    def tell(given, config: RunnableConfig):
        told = json.dumps(config["configurable"].get("holdfast_claims"))
        return told[::-1]  # so that nothing but the chain spells them
    return RunnableLambda(tell)
"""
GIVEN: dict[str, Any] = {
    "email": f"{CANARY}@example.com",
    "tenant": 7,
    "roles": ["reader", "writer"],
    "vip": True,
    "score": 0.5,
    "address": {"city": "Rome"},
    "mixed": ["a", 1],
    "nothing": None,
    "other": "unasked",
}
NAMES = "email, tenant,roles,vip,score,address,mixed,nothing,lacking,email"
TOLD = {name: GIVEN[name] for name in ("email", "tenant", "roles", "vip", "score")}


async def test_of_the_named_claims_what_a_chain_can_use_is_told() -> None:
    assert chosen(names_of(NAMES), GIVEN) == TOLD
    assert chosen((), GIVEN) == {}
    assert chosen(("x",), {"x": float("inf")}) == {}


async def test_their_bound_is_one_for_all_and_none_is_left_out_silently() -> None:
    fits = "x" * (MOST_BYTES - len('{"a":""}'))
    assert chosen(("a",), {"a": fits}) == {"a": fits}
    for given in ({"a": fits + "x"}, {"a": fits, "b": 1}, {"a": "ä" * (MOST_BYTES // 2)}):
        with pytest.raises(Forbidden):
            chosen(("a", "b"), given)


def principal(*claims: tuple[Any, Any]) -> list[tuple[bytes, bytes]]:
    """Return App Service's headers for a caller with these claims."""
    said = {"auth_typ": "aad", "claims": [{"typ": name, "val": value} for name, value in claims]}
    header = base64.b64encode(json.dumps(said).encode())
    return [(b"x-ms-client-principal-id", b"1"), (b"x-ms-client-principal", header)]


async def test_the_platforms_principal_is_read_by_the_exact_types_of_its_claims() -> None:
    auth = EasyAuth(("roles", "http://schemas.example/tenantid"))
    given = (("roles", "a"), ("roles", "b"), ("http://schemas.example/tenantid", "t"), ("name", CANARY))
    caller = await auth.caller(Headers(raw=principal(*given)))
    assert caller.owner == "easyauth::1"
    assert caller.claims == {"roles": ["a", "b"], "http://schemas.example/tenantid": "t"}
    assert (await EasyAuth().caller(Headers(raw=principal(*given)))).claims == {}
    assert (await auth.caller(Headers(raw=principal()[:1]))).claims == {}


@pytest.mark.parametrize(
    "wrong",
    [
        b"no base64!",
        base64.b64encode(b"no json"),
        base64.b64encode(b"[]"),
        base64.b64encode(b'{"claims": 1}'),
        base64.b64encode(b'{"claims": [{"typ": "a"}]}'),
        base64.b64encode(b'{"claims": [{"typ": 1, "val": "a"}]}'),
        base64.b64encode(b"[" * 60_000),
    ],
)
async def test_a_principal_that_the_platform_does_not_write_is_nobodys(wrong: bytes) -> None:
    headers = [*principal()[:1], (b"x-ms-client-principal", wrong)]
    with pytest.raises(Unauthorized):
        await EasyAuth(("a",)).caller(Headers(raw=headers))
    twice = [*principal(("a", "x")), *principal(("a", "y"))[1:]]
    with pytest.raises(Unauthorized):
        await EasyAuth(("a",)).caller(Headers(raw=twice))


async def test_who_has_no_claims_is_told_by_name_alone(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(keys_file((ALICE, "alice")))
    assert await Keys(tmp_path / "keys").caller(Headers(by_key(ALICE))) == ("key:alice", {})
    assert (await Open().caller(Headers())).claims == {}


async def test_claims_need_a_sign_in_that_has_some() -> None:
    for auth in ({}, {"GATEWAY_AUTH": "keys", "GATEWAY_KEYS_FILE": "x", "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0]}):
        with pytest.raises(ValueError, match="GATEWAY_CHAIN_CLAIMS needs GATEWAY_AUTH=jwt or easyauth"):
            Settings.from_env({**auth, "GATEWAY_CHAIN_CLAIMS": "email"})
    issuer = {"GATEWAY_AUTH": "jwt", "GATEWAY_JWT_ISSUER": "https://i", "GATEWAY_JWT_AUDIENCE": "a"}
    with pytest.raises(ValueError, match="GATEWAY_CHAIN_CLAIMS may have 32 names"):
        Settings.from_env(
            {**issuer, "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0], "GATEWAY_CHAIN_CLAIMS": ",".join("x" * 33)}
        )


async def test_a_chain_without_claims_is_told_none_and_no_client_sets_them() -> None:
    stage = Stage("s", "d", owner="key:ada", stream_id="id")
    forged = {"holdfast_claims": {"email": "eve"}}
    assert "holdfast_claims" not in config_of(forged, stage, [])["configurable"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def issuer() -> AsyncIterator[Issuer]:
    """Yield the issuer that signs the callers in."""
    async with Issuer() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def signed_host(
    issuer: Issuer, model: ModelServer, store: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Host]:
    """Yield a host that passes claims to chains."""
    folder = tmp_path_factory.mktemp("claims")
    (folder / "claims_chains.py").write_text(CHAINS)
    settings = {
        **issuer.environment(),
        "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0],
        "GATEWAY_CHAIN_CLAIMS": NAMES,
        "GATEWAY_QUEUE_NAME": "jobs-with-claims",
        "GATEWAY_CHAINS": "claims_chains",
        "PYTHONPATH": str(folder),
    }
    async with uvicorn_host(model, store.url, "all", **settings) as host:
        yield host


def backwards(text: str) -> Any:
    """Return the data that the chain received. The chain sends its text backwards."""
    return json.loads(text[::-1])


async def test_the_tokens_claims_reach_the_chain_and_no_answer(signed_host: Host, issuer: Issuer) -> None:
    headers = by_key(issuer.sign("rsa", sub="ada", **GIVEN))
    forged = {"holdfast_claims": {"email": "eve"}, "nested": {"holdfast_claims": {"email": "eve"}}}
    body = {"input": 1, "chain": "claims", "params": forged}
    answer = await signed_host.http.post("/stream", json=body, headers={**headers, **EVENTS})
    status = await signed_host.http.get(answer.headers["location"], headers={**headers, **JSON})
    assert backwards(status.json()["text"]) == TOLD
    for told in (answer, status):
        assert CANARY not in told.text
        assert "holdfast_claims" not in told.text


async def test_by_the_formats_too(signed_host: Host, issuer: Issuer) -> None:
    headers = by_key(issuer.sign("rsa", sub="ada", email="a@example.com"))
    run = {"assistant_id": "claims", "input": {"messages": [{"role": "user", "content": "x"}]}}
    answer = await signed_host.http.post("/runs/wait", json=run, headers=headers)
    assert backwards(answer.json()["messages"][-1]["content"]) == {"email": "a@example.com"}
    chat = {"model": "claims", "messages": [{"role": "user", "content": "x"}]}
    answer = await signed_host.http.post("/v1/chat/completions", json=chat, headers=headers)
    assert backwards(answer.json()["choices"][0]["message"]["content"]) == {"email": "a@example.com"}


async def test_who_has_too_many_claims_is_refused(signed_host: Host, issuer: Issuer) -> None:
    headers = by_key(issuer.sign("rsa", sub="ada", email="x" * MOST_BYTES))
    answer = await signed_host.http.post("/stream", json={"input": 1, "chain": "claims"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "xxx" not in answer.text


async def test_the_record_keeps_them_and_shows_them_to_nobody() -> None:
    raw = {"status": b"queued", "claims": json.dumps({"email": CANARY}).encode()}
    record = Record.of("id", raw)
    assert record.claims == {"email": CANARY}
    assert CANARY not in repr(record)


async def test_the_gateways_auth_knows_the_names(issuer: Issuer) -> None:
    environment = {**issuer.environment(), "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0], "GATEWAY_CHAIN_CLAIMS": "a"}
    caller = await auth_of(Settings.from_env(environment)).caller(
        Headers(by_key(issuer.sign("rsa", sub="ada", a="b", b="c")))
    )
    assert caller == ("jwt:ada", {"a": "b"})
