"""What an issuer may publish, and which of its tokens are accepted.

These are faults 75 to 77, tested in this process and on a host.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.datastructures import Headers

from gateway.callers import auth_jwt
from gateway.callers.auth import auth_of
from gateway.protocol.errors import AuthUnavailable, Forbidden, Unauthorized
from gateway.settings import Settings
from gateway.web.openapi.document import document
from tests.callers import TOKEN_KEYS, by_key
from tests.hosts import JSON, NOBODY, uvicorn_host
from tests.support.issuer import AUDIENCE, Issuer, rsa_key
from tests.support.model_server import ModelServer
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

BASE = {
    "GATEWAY_AUTH": "jwt",
    "GATEWAY_JWT_ISSUER": "https://issuer.example",
    "GATEWAY_JWT_AUDIENCE": AUDIENCE,
    "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0],
}


@pytest_asyncio.fixture(loop_scope="session")
async def own() -> AsyncIterator[Issuer]:
    """Start an issuer for this test alone."""
    async with Issuer() as started:
        yield started


def reader(issuer: Issuer, **settings: str) -> auth_jwt.Jwt:
    """Return the JWT reader that a gateway process makes from these settings."""
    made = auth_of(Settings.from_env({**BASE, **issuer.environment(), **settings}))
    assert isinstance(made, auth_jwt.Jwt)
    return made


async def owner(auth: auth_jwt.Jwt, token: str) -> str:
    return await auth.owner(Headers(by_key(token)))


@pytest.mark.parametrize("name", ["GATEWAY_JWT_ISSUER", "GATEWAY_JWT_JWKS_URL"])
@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://issuer.example/tenant/v2.0", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080/realms/x", True),
        ("http://[::1]:8080", True),
        ("http://issuer.example", False),
        ("http://127.0.0.1.issuer.example", False),
        ("http://localhost@issuer.example", False),
        ("http://10.0.0.1", False),
        ("http://[::ffff:10.0.0.1]", False),
        ("ftp://issuer.example", False),
        ("file:///etc/passwd", False),
        ("issuer.example", False),
        ("https://", False),
        ("http://[", False),
    ],
)
async def test_fault_76_keys_come_by_https_or_from_this_machine(name: str, url: str, taken: bool) -> None:
    settings = {**BASE, name: url}
    if taken:
        assert Settings.from_env(settings)
        return
    with pytest.raises(ValueError, match=f"{name} must begin with https://") as told:
        Settings.from_env(settings)
    assert "issuer.example" not in str(told.value)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"issuer": "https://issuer.example"}, "another issuer"),
        ({"issuer": "{url}/"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"issuer": ["{url}"]}, "another issuer"),
        ({"jwks_uri": "http://issuer.example/keys"}, "not https://"),
        ({"jwks_uri": "file:///keys"}, "not https://"),
        ({"jwks_uri": None}, "not https://"),
    ],
)
async def test_fault_76_a_discovery_document_is_the_issuers_own(
    own: Issuer, caplog: pytest.LogCaptureFixture, said: dict[str, Any], why: str
) -> None:
    caplog.set_level(logging.WARNING, "holdfast")
    own.discovery = {
        name: value.format(url=own.url) if isinstance(value, str) else value for name, value in said.items()
    }
    auth = reader(own)
    with pytest.raises(AuthUnavailable):
        await owner(auth, own.sign("rsa", sub="alice"))
    assert why in caplog.text
    assert own.count() == 0
    # With this setting, the issuer's document is not requested.
    told = reader(own, GATEWAY_JWT_JWKS_URL=f"{own.url}/keys")
    assert await owner(told, own.sign("rsa", sub="alice")) == "jwt:alice"


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys"])
async def test_fault_76_a_redirect_is_not_followed(
    own: Issuer, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.WARNING, "holdfast")
    own.redirected = path
    with pytest.raises(AuthUnavailable):
        await owner(reader(own), own.sign("rsa", sub="alice"))
    assert "redirect" in caplog.text
    assert "/elsewhere" not in own.asked


# The test signs with a short key, which causes this warning.
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_fault_76_an_rsa_key_that_is_short_is_none(
    own: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "holdfast")
    own.keys["short"] = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    auth = reader(own)
    with pytest.raises(Unauthorized):
        await owner(auth, own.sign("short", sub="alice"))
    assert "1 of the issuer's RSA keys have under 2048 bits" in caplog.text
    assert await owner(auth, own.sign("rsa", sub="alice")) == "jwt:alice"


ID_TOKENS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a nonce": ({"typ": "JWT"}, {"nonce": "n"}),
    "a nonce, without typ": ({"typ": None}, {"nonce": "n"}),
    "at_hash": ({}, {"at_hash": "h"}),
    "c_hash": ({}, {"c_hash": "h"}),
    "at_hash in one that says it is none": ({"typ": "at+jwt"}, {"at_hash": "h"}),
    "Keycloak's": ({}, {"typ": "ID"}),
    "Keycloak's, with a nonce": ({}, {"typ": "ID", "nonce": "n"}),
    "Keycloak's for refreshing": ({}, {"typ": "Refresh"}),
    "Cognito's": ({}, {"token_use": "id"}),
    "a logout token": ({"typ": "logout+jwt"}, {}),
    "a logout token of older issuers": ({}, {"events": {}}),
    "another kind": ({"typ": "id_token+jwt"}, {}),
    "for a proof of possession": ({"typ": "dpop+jwt"}, {}),
}
ACCESS_TOKENS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Entra's": ({"typ": "JWT"}, {"ver": "2.0", "azp": "a", "scp": "ask", "uti": "u"}),
    "without typ": ({"typ": None}, {}),
    "RFC 9068": ({"typ": "at+jwt"}, {"client_id": "c", "scope": "ask"}),
    "RFC 9068, in full": ({"typ": "application/at+jwt"}, {}),
    "in capitals": ({"typ": "AT+JWT"}, {}),
    "Keycloak's": ({"typ": "JWT"}, {"typ": "Bearer"}),
    "Keycloak's before 24": ({"typ": "JWT"}, {"typ": "Bearer", "nonce": "n"}),
    "Cognito's": ({}, {"token_use": "access"}),
}


@pytest.mark.parametrize(("header", "claims"), ID_TOKENS.values(), ids=ID_TOKENS)
async def test_fault_76_an_id_token_is_no_access_token(
    own: Issuer, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    with pytest.raises(Unauthorized):
        await owner(reader(own), own.sign("ec", header=header, sub="alice", **claims))


@pytest.mark.parametrize(("header", "claims"), ACCESS_TOKENS.values(), ids=ACCESS_TOKENS)
async def test_an_access_token_is_one_as_each_issuer_writes_it(
    own: Issuer, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    assert await owner(reader(own), own.sign("ec", header=header, sub="alice", **claims)) == "jwt:alice"


SCOPES = [
    ({"scope": "read ask"}, True),
    ({"scp": "ask"}, True),
    ({"scp": ["read", "ask"]}, True),
    ({"scope": "asking"}, False),
    ({"scope": "read,ask"}, False),
    ({"scope": ["ask", 1]}, True),
    ({"scope": {"ask": True}}, False),
    ({"roles": ["ask"]}, False),
    ({}, False),
]


@pytest.mark.parametrize(("claims", "has"), SCOPES)
async def test_fault_77_a_scope_can_be_required(own: Issuer, claims: dict[str, Any], has: bool) -> None:
    auth, token = reader(own, GATEWAY_JWT_REQUIRED_SCOPE="ask"), own.sign("ec", sub="alice", **claims)
    if has:
        assert await owner(auth, token) == "jwt:alice"
        return
    with pytest.raises(Forbidden):
        await owner(auth, token)


@pytest.mark.parametrize(
    ("claims", "has"),
    [
        ({"roles": ["a", "Asker"]}, True),
        ({"roles": "Asker"}, True),
        ({"roles": ["asker"]}, False),
        ({}, False),
    ],
)
async def test_fault_77_a_role_can_be_required(own: Issuer, claims: dict[str, Any], has: bool) -> None:
    auth = reader(own, GATEWAY_JWT_REQUIRED_SCOPE="ask", GATEWAY_JWT_REQUIRED_ROLE="Asker")
    token = own.sign("ec", sub="alice", scp="ask", **claims)
    if has:
        assert await owner(auth, token) == "jwt:alice"
        return
    with pytest.raises(Forbidden):
        await owner(auth, token)
    with pytest.raises(Unauthorized):  # An unknown caller does not learn what is required.
        await owner(auth, own.sign("ec", key=rsa_key(), sub="alice", header={"kid": "rsa"}))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"GATEWAY_AUTH": ""}, "GATEWAY_JWT_REQUIRED_SCOPE needs GATEWAY_AUTH=jwt"),
        ({"GATEWAY_JWT_REQUIRED_SCOPE": "a b"}, "GATEWAY_JWT_REQUIRED_SCOPE must be one name"),
    ],
)
async def test_fault_77_a_scope_that_would_never_be_asked_for_is_refused(
    settings: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Settings.from_env({**BASE, "GATEWAY_JWT_REQUIRED_SCOPE": "ask", **settings})


async def test_fault_77_on_a_host_it_is_403_in_every_format(
    own: Issuer, model: ModelServer, store: RedisServer
) -> None:
    settings = {"GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0], "GATEWAY_JWT_REQUIRED_SCOPE": "ask"}
    known, other = own.sign("ec", sub="alice", scp="ask"), own.sign("ec", sub="alice", scp="read")
    async with uvicorn_host(model, store.url, "web", **own.environment(), **settings) as host:
        answer = await host.http.post("/stream", json={"user": "x"}, headers=by_key(other))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
        for path in ("/v1/chat/completions", "/runs/wait", "/api/chat", "/api/http_trigger"):
            asked = await host.http.post(path, json={}, headers=by_key(other))
            assert asked.status_code == 403, path
        where = f"/stream/{NOBODY}"
        assert (await host.http.get(where, headers={**JSON, **by_key(other)})).status_code == 403
        assert (await host.http.get(where, headers={**JSON, **by_key(known)})).status_code == 404
        assert (await host.http.get(where, headers=JSON)).status_code == 401
        described = (await host.http.get("/openapi.json")).json()
    codes = [
        operation["responses"]["403"]["content"]["application/problem+json"]["schema"]["properties"]["code"]
        for path, method in (("/stream", "post"), ("/stream/{id}", "get"), ("/stream/{id}", "delete"))
        for operation in [described["paths"][path][method]]
    ]
    assert codes == [{"enum": ["forbidden"]}] * 3


async def test_where_nothing_is_required_no_403_is_described() -> None:
    told = document(Settings.from_env({**BASE, "REDIS_URL": "redis://127.0.0.1:1"}), {"chat": None})
    assert "403" not in told["paths"]["/stream"]["post"]["responses"]


async def test_fault_75_known_keys_hold_for_a_day_while_the_issuer_is_away(
    own: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("gateway.callers.auth_jwt.time", SimpleNamespace(monotonic=lambda: clock))
    auth, token = reader(own), own.sign("ec", sub="alice")
    assert await owner(auth, token) == "jwt:alice"
    await own.stop()
    clock += auth_jwt.HELD_SECONDS
    assert await owner(auth, token) == "jwt:alice"
    clock += 1
    with pytest.raises(AuthUnavailable):
        await owner(auth, token)
    await own.start()
    clock += auth_jwt.RETRY_SECONDS + 1
    assert await asyncio.wait_for(owner(auth, token), 30) == "jwt:alice"
