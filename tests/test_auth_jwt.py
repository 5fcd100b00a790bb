"""JWTs of an OpenID issuer, on both hosts and in this process.

Checked: which JWTs are valid, and which requests the issuer gets.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.datastructures import Headers

from gateway.callers import auth_jwt
from gateway.callers.auth import EasyAuth, auth_of
from gateway.protocol.errors import AuthUnavailable, Unauthorized
from gateway.settings import Settings
from tests.callers import TOKEN_KEYS, Guarded, by_key
from tests.hosts import JSON, NOBODY, uvicorn_host
from tests.support.issuer import AUDIENCE, Issuer, ec_key, published, rsa_key
from tests.support.model_server import ModelServer, script
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG_AGO, FAR = -3600, 3600
STRANGERS = rsa_key()
PLATFORM = {"WEBSITE_AUTH_ENABLED": "True"}  # App Service sets this variable.


def now(seconds: int = 0) -> int:
    return int(time.time()) + seconds


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unsigned(issuer: Issuer, alg: str) -> str:
    """Return a JWT with this algorithm. PyJWT itself refuses to make one."""
    claims = {"iss": issuer.url, "aud": AUDIENCE, "exp": now(FAR), "sub": "alice"}
    return f"{encoded({'alg': alg, 'typ': 'JWT', 'kid': 'rsa'})}.{encoded(claims)}."


def by_public_key(issuer: Issuer) -> str:
    """Sign with HS256, with the issuer's public key as the secret.

    A verifier that trusts `alg` accepts such a JWT.
    """
    public = (
        issuer.keys["rsa"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    signed = unsigned(issuer, "HS256").rstrip(".")
    return f"{signed}.{encoded(hmac.digest(public, signed.encode(), hashlib.sha256))}"


def spoiled(token: str) -> str:
    """Return the token with other claims, which its signature does not cover."""
    header, claims, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return ".".join((header, encoded({**said, "sub": "mallory"}), signature))


BAD: dict[str, Callable[[Issuer], str]] = {
    "audience": lambda issuer: issuer.sign("rsa", sub="alice", aud="api://another"),
    "no audience": lambda issuer: issuer.sign("rsa", sub="alice", aud=None),
    "issuer": lambda issuer: issuer.sign("rsa", sub="alice", iss="http://127.0.0.1:1"),
    "issuer with a slash": lambda issuer: issuer.sign("rsa", sub="alice", iss=issuer.url + "/"),
    "no issuer": lambda issuer: issuer.sign("rsa", sub="alice", iss=None),
    "expired": lambda issuer: issuer.sign("rsa", sub="alice", exp=now(LONG_AGO)),
    "no expiry": lambda issuer: issuer.sign("rsa", sub="alice", exp=None),
    "expiry in words": lambda issuer: issuer.sign("rsa", sub="alice", exp="soon"),
    "not yet": lambda issuer: issuer.sign("rsa", sub="alice", nbf=now(FAR)),
    "issued later": lambda issuer: issuer.sign("rsa", sub="alice", iat=now(FAR)),
    "no owner": lambda issuer: issuer.sign("rsa"),
    "empty owner": lambda issuer: issuer.sign("rsa", sub=""),
    "alg none": lambda issuer: unsigned(issuer, "none"),
    "alg None": lambda issuer: unsigned(issuer, "None"),
    "alg HS256 with the public key": by_public_key,
    "alg RS256 without a signature": lambda issuer: unsigned(issuer, "RS256"),
    "alg unheard of": lambda issuer: unsigned(issuer, "XX1"),
    "unknown kid": lambda issuer: issuer.sign("rsa", sub="alice", header={"kid": "unknown"}),
    "no kid": lambda issuer: issuer.sign("rsa", sub="alice", header={"kid": ""}),
    "kid of a path": lambda issuer: issuer.sign("rsa", sub="alice", header={"kid": "../../dev/null"}),
    "kid of another kind: EC": lambda issuer: issuer.sign("rsa", sub="alice", header={"kid": "ec"}),
    "kid of another kind: RSA": lambda issuer: issuer.sign("ec", sub="alice", header={"kid": "rsa"}),
    "another's RSA key": lambda issuer: issuer.sign("rsa", key=STRANGERS, sub="alice"),
    "another's EC key": lambda issuer: issuer.sign("ec", key=ec_key(), sub="alice"),
    "other claims": lambda issuer: spoiled(issuer.sign("rsa", sub="alice")),
    "its key brought along": lambda issuer: issuer.sign(
        "rsa", key=STRANGERS, sub="alice", header={"jwk": {"kty": "RSA"}, "jku": f"{issuer.url}/mine"}
    ),
    "critical extension": lambda issuer: issuer.sign("rsa", sub="alice", header={"crit": ["x"], "x": 1}),
    "garbage": lambda issuer: "garbage",
    "dots": lambda issuer: "..",
    "garbage in three parts": lambda issuer: "e30.e30.e30",
    "a list for a header": lambda issuer: f"{encoded([])}.{encoded({})}.x",
    "no JSON": lambda issuer: f"{encoded(b'{')}.{encoded({})}.x",
    "nested": lambda issuer: f"{encoded(b'[' * 5000)}.{encoded({})}.x",
    "too long": lambda issuer: issuer.sign("rsa", sub="alice", more="x" * 9000),
    "nothing": lambda issuer: "",
}


@pytest.mark.parametrize("kid", ["rsa", "ec"])
async def test_a_jwt_of_the_issuer_is_its_owner(trusting: Guarded, issuer: Issuer, kid: str) -> None:
    mine, others = (issuer.sign(kid, sub=name) for name in ("alice", "bob"))
    answer = await trusting.http.post("/stream", json={"user": script(["a"])}, headers=by_key(mine))
    where = answer.headers["location"]
    again = issuer.sign("rsa", sub="alice", aud=["other", AUDIENCE], nbf=now(30), jti="again")
    for token, status in ((mine, 200), (again, 200), (others, 404)):
        assert (await trusting.http.get(where, headers={**JSON, **by_key(token)})).status_code == status


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
async def test_a_jwt_that_is_not_good_is_the_same_401(
    trusting: Guarded, issuer: Issuer, make: Callable[[Issuer], str]
) -> None:
    token = make(issuer)
    headers = by_key(token) if token else {}
    answer = await trusting.http.post(
        "/stream", content=b"{", headers={**headers, "content-type": "text/plain"}
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["detail"] == "Who asks is not known here."
    assert (await trusting.http.get(f"/stream/{NOBODY}", headers=headers)).text == answer.text


async def test_a_jwt_counts_as_a_bearer_token_alone(trusting: Guarded, issuer: Issuer) -> None:
    token = issuer.sign("rsa", sub="alice")
    shown: list[list[tuple[str, str]]] = [
        [("x-api-key", token)],
        [("authorization", f"Bearer {token}")] * 2,
        [("x-ms-client-principal-id", "alice")],
    ]
    for headers in shown:
        assert (await trusting.http.get(f"/stream/{NOBODY}", headers=headers)).status_code == 401


async def test_a_stream_token_is_good_where_callers_have_jwts(trusting: Guarded, issuer: Issuer) -> None:
    token = issuer.sign("ec", sub="alice")
    where = await trusting.finished(token)
    url = (await trusting.token(where, token))["stream"]
    assert (await trusting.http.get(url, headers=JSON)).json()["status"] == "done"


@pytest_asyncio.fixture(loop_scope="session")
async def own() -> AsyncIterator[Issuer]:
    """Start an issuer for this test alone."""
    async with Issuer() as started:
        yield started


def reader(issuer: Issuer, **settings: str) -> auth_jwt.Jwt:
    """Return the JWT reader that a gateway process makes from these settings."""
    environment = {**issuer.environment(), "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0], **settings}
    made = auth_of(Settings.from_env(environment))
    assert isinstance(made, auth_jwt.Jwt)
    return made


async def owner(auth: auth_jwt.Jwt, token: str) -> str:
    return await auth.owner(Headers(by_key(token)))


async def test_its_keys_are_asked_for_once_in_pieces_as_they_come(own: Issuer) -> None:
    own.keys |= {f"more-{number}": ec_key() for number in range(50)}
    auth = reader(own)
    for kid in ("rsa", "ec", "more-49"):
        assert await owner(auth, own.sign(kid, sub="alice")) == "jwt:alice"
    assert own.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_the_address_of_its_keys_may_be_set(own: Issuer) -> None:
    auth = reader(own, GATEWAY_JWT_JWKS_URL=f"{own.url}/keys")
    assert await owner(auth, own.sign("rsa", sub="alice")) == "jwt:alice"
    assert own.asked == ["/keys"]


async def test_another_claim_may_name_the_owner(own: Issuer) -> None:
    auth = reader(own, GATEWAY_JWT_OWNER_CLAIM="oid")
    assert await owner(auth, own.sign("rsa", oid="id-1")) == "jwt:id-1"
    for claims in ({"sub": "alice"}, {"oid": ""}, {"oid": ["a"]}, {"oid": {"a": 1}}, {"oid": True}):
        with pytest.raises(Unauthorized):
            await owner(auth, own.sign("rsa", **claims))


async def test_a_flood_of_unknown_kids_asks_twice_a_minute_at_most(
    own: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("gateway.callers.auth_jwt.time", SimpleNamespace(monotonic=lambda: clock))
    auth = reader(own)
    started, times = clock, []
    token = own.sign("rsa", sub="mallory", header={"kid": "unknown"})
    asked = own.count()
    while clock < started + 120:
        with pytest.raises(Unauthorized):
            await owner(auth, token)
        if own.count() > asked:
            asked = own.count()
            times.append(clock)
        clock += 0.5
    assert all(len([t for t in times if begin <= t < begin + 60]) <= 2 for begin in times)
    assert len(times) >= 2


async def test_a_rotated_key_is_picked_up(own: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = reader(own)
    old = own.sign("rsa", sub="alice")
    assert await owner(auth, old) == "jwt:alice"
    own.keys = {"next": rsa_key()}
    with pytest.raises(Unauthorized):  # The issuer's keys were read a moment ago, so they are not read again.
        await owner(auth, own.sign("next", sub="alice"))
    monkeypatch.setattr(auth_jwt, "RETRY_SECONDS", -1)
    assert await owner(auth, own.sign("next", sub="alice")) == "jwt:alice"
    with pytest.raises(Unauthorized):  # The issuer does not list this key any more.
        await owner(auth, old)


async def test_a_key_that_was_taken_back_is_forgotten_within_the_hour(
    own: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = reader(own)
    token = own.sign("rsa", sub="alice")
    assert await owner(auth, token) == "jwt:alice"
    del own.keys["rsa"]
    monkeypatch.setattr(auth_jwt, "KEPT_SECONDS", -1)
    monkeypatch.setattr(auth_jwt, "RETRY_SECONDS", -1)
    with pytest.raises(Unauthorized):
        await owner(auth, token)


async def test_while_the_issuer_was_never_reached_it_cannot_be_told(
    own: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    auth = reader(own)
    token = own.sign("rsa", sub="alice")
    await own.stop()
    for _ in range(2):
        with pytest.raises(AuthUnavailable):
            await owner(auth, token)
    # The gateway does not ask the issuer again at once.
    assert caplog.text.count("the issuer's keys cannot be read") == 1
    assert token not in caplog.text
    with pytest.raises(Unauthorized):  # No key could make this token valid.
        await owner(auth, "garbage")
    await own.start()
    monkeypatch.setattr(auth_jwt, "RETRY_SECONDS", -1)
    assert await owner(auth, token) == "jwt:alice"


async def test_known_keys_stay_while_the_issuer_is_away(own: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_jwt, "RETRY_SECONDS", -1)
    auth = reader(own)
    token = own.sign("rsa", sub="alice")
    assert await owner(auth, token) == "jwt:alice"
    await own.stop()
    # The stored keys are now too old and must be read again.
    monkeypatch.setattr(auth_jwt, "KEPT_SECONDS", -1)
    assert await owner(auth, token) == "jwt:alice"
    with pytest.raises(Unauthorized):
        await owner(auth, own.sign("rsa", sub="alice", header={"kid": "unknown"}))
    await own.start()


@pytest.mark.parametrize(
    "answer",
    [[], "x", 1, {}, {"keys": []}, {"keys": "x"}, {"keys": ["x"]}, {"keys": [{"kty": "x"}]}, ["x" * 300_000]],
    ids=[
        "list",
        "text",
        "number",
        "nothing",
        "no keys",
        "text for keys",
        "text for a key",
        "no kind",
        "long",
    ],
)
async def test_an_issuer_that_says_nonsense_is_as_one_that_is_away(
    own: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    caplog.set_level(logging.WARNING, "holdfast")
    monkeypatch.setattr(auth_jwt, "RETRY_SECONDS", -1)
    auth, token = reader(own), own.sign("rsa", sub="alice")
    own.answer = answer
    with pytest.raises(AuthUnavailable):
        await owner(auth, token)
    assert "the issuer's keys cannot be read" in caplog.text
    own.answer = None
    assert await owner(auth, token) == "jwt:alice"
    own.answer = answer
    monkeypatch.setattr(auth_jwt, "KEPT_SECONDS", -1)
    assert await owner(auth, token) == "jwt:alice"


async def test_keys_without_a_use_for_us_do_not_matter(own: Issuer) -> None:
    symmetric = {"kty": "oct", "kid": "oct", "k": encoded(b"k" * 32)}
    good = published("ec", own.keys["ec"])
    nameless = {name: value for name, value in good.items() if name != "kid"}
    own.answer = {"keys": [{"kty": "none", "kid": "x"}, symmetric, good, nameless]}
    auth = reader(own)
    assert await owner(auth, own.sign("ec", sub="alice")) == "jwt:alice"
    forged = jwt.encode({"sub": "alice"}, "k" * 32, "HS256", headers={"kid": "oct"})
    with pytest.raises(Unauthorized):
        await owner(auth, forged)


async def test_on_a_host_an_issuer_that_was_never_reached_is_503(
    own: Issuer, model: ModelServer, store: RedisServer
) -> None:
    settings = {**own.environment(), "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0]}
    token = own.sign("rsa", sub="alice")
    await own.stop()
    async with uvicorn_host(model, store.url, "web", **settings) as host:
        answer = await host.http.post("/stream", json={"user": "x"}, headers=by_key(token))
        assert (answer.status_code, answer.json()["code"]) == (503, "auth_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert str(own.port) not in answer.text
    await own.start()


async def test_the_platforms_headers_are_its_callers_and_only_where_it_is_trusted(
    model: ModelServer, store: RedisServer
) -> None:
    def principal(name: str, provider: str = "aad") -> dict[str, str]:
        return {"x-ms-client-principal-id": name, "x-ms-client-principal-idp": provider}

    settings = {**PLATFORM, "GATEWAY_AUTH": "easyauth", "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0]}
    async with uvicorn_host(model, store.url, "web", **settings) as host:
        made = await host.http.post("/stream", json={"user": "x"}, headers=principal("id-1"))
        where = made.headers["location"]
        for headers, status in (
            (principal("id-1"), 200),
            (principal("id-2"), 404),
            (principal("id-1", "github"), 404),
            (principal(""), 401),
            (by_key("id-1"), 401),
            ({}, 401),
        ):
            assert (await host.http.get(where, headers={**JSON, **headers})).status_code == status
        twice = [*principal("id-1").items(), ("x-ms-client-principal-id", "id-1")]
        assert (await host.http.get(where, headers=twice)).status_code == 401
        await host.http.delete(where, headers=principal("id-1"))


async def test_the_platforms_provider_is_named_once() -> None:
    named = [(b"x-ms-client-principal-id", b"1"), (b"x-ms-client-principal-idp", b"aad")]
    assert await EasyAuth().owner(Headers(raw=named)) == "easyauth:aad:1"
    with pytest.raises(Unauthorized):
        await EasyAuth().owner(Headers(raw=[*named, (b"x-ms-client-principal-idp", b"github")]))


async def test_no_symmetric_algorithm_is_ever_taken() -> None:
    assert not [name for name in auth_jwt.ALGORITHMS if name.startswith("HS") or name.lower() == "none"]
    assert isinstance(STRANGERS, rsa.RSAPrivateKey)
