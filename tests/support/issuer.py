"""An OpenID issuer on loopback: its discovery document, its keys, and JWTs that it signs.

It counts the requests. It can be offline, answer slowly in pieces, or answer wrongly.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

AUDIENCE = "api://holdfast"
LIFE_SECONDS = 600
RSA_BITS = 2048
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """`async with Issuer() as issuer`; then `issuer.environment()` and `issuer.sign("rsa", sub="alice")`."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKey] = {"rsa": rsa_key(), "ec": ec_key()}  # kid → key, all published
        self.asked: list[str] = []  # paths of the requests, in order
        self.answer: Any = None  # if set, returned in place of the keys
        self.discovery: dict[str, Any] = {}  # members to replace in its discovery document
        self.redirected = ""  # a path that answers with a redirect
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return {"GATEWAY_AUTH": "jwt", "GATEWAY_JWT_ISSUER": self.url, "GATEWAY_JWT_AUDIENCE": AUDIENCE}

    def sign(
        self, kid: str, *, key: Any = None, alg: str = "", header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """Return a JWT signed with this key, or with another key under this key's name. A claim of None is
        left out."""
        key = self.keys[kid] if key is None else key
        alg = alg or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        whole = {"iss": self.url, "aud": AUDIENCE, "exp": int(time.time()) + LIFE_SECONDS, **claims}
        said = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(said, key, algorithm=alg, headers={"kid": kid, **(header or {})})

    def count(self) -> int:
        """Return how many times the keys were requested."""
        return self.asked.count("/keys")

    async def start(self) -> None:
        """Start the server. A second start uses the same port."""
        bound = socket.create_server(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        routes = [
            Route("/.well-known/openid-configuration", self._discovery),
            Route("/keys", self._keys),
            Route("/elsewhere", self._keys),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server._serve([bound]), name="issuer")

    async def stop(self) -> None:
        """Stop the server; nothing listens on the port then."""
        self._server.should_exit = True
        await self._task

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _discovery(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        if self.redirected == request.url.path:
            return RedirectResponse(f"{self.url}/elsewhere")
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery})

    async def _keys(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        if self.redirected == request.url.path:
            return RedirectResponse(f"{self.url}/elsewhere")
        found = (
            self.answer
            if self.answer is not None
            else {"keys": [published(*item) for item in self.keys.items()]}
        )
        return StreamingResponse(_in_pieces(json.dumps(found).encode()), media_type="application/json")


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """Send the body in pieces, as a network delivers a longer document."""
    half = len(body) // 2
    yield body[:half]
    await asyncio.sleep(0.02)  # without this pause the pieces arrive as one
    yield body[half:]


def published(kid: str, key: PrivateKey) -> dict[str, Any]:
    """Return a key in the form in which an issuer publishes it (RFC 7517)."""
    if isinstance(key, rsa.RSAPrivateKey):
        return {
            **jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
            "kid": kid,
            "use": "sig",
        }
    return {**jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
