"""The token endpoint of a managed identity on loopback, as App Service gives it to a function.

`IDENTITY_ENDPOINT` and `IDENTITY_HEADER` name it (learn.microsoft.com, "REST endpoint reference" of managed
identities for App Service). Its tokens are unsigned JWTs with a short life. `Gatekeeper` makes a redis-server
accept them as passwords of one user until they expire.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

HEADER = "canary-identity-header"
SIGNATURE = "canary-signature"


class IdentityServer:
    """`async with IdentityServer() as identity`; then `identity.environment()`."""

    def __init__(self, *, oid: str = "11111111-2222", life_seconds: float = 3600) -> None:
        self.oid = oid
        self.life_seconds = life_seconds
        self.delay_seconds = 0.0
        self.frozen = False  # returns the same token again, as the real endpoint does
        self.requests: list[dict[str, str]] = []  # the queries, in order
        self.tokens: list[str] = []
        self.issued: Callable[[str], Awaitable[None]] | None = None
        self.port = 0

    def environment(self) -> dict[str, str]:
        return {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{self.port}/msi/token", "IDENTITY_HEADER": HEADER}

    async def start(self) -> None:
        """Start the server. A second start uses the same port."""
        bound = socket.create_server(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        app = Starlette(routes=[Route("/msi/token", self._answer)])
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, lifespan="off")
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server._serve([bound]), name="identity-server")

    async def stop(self) -> None:
        """Stop the server; nothing listens on the port then."""
        self._server.should_exit = True
        await self._task

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _answer(self, request: Request) -> Response:
        if request.headers.get("x-identity-header") != HEADER:
            return JSONResponse({"statusCode": 401, "message": "wrong header"}, 401)
        self.requests.append(dict(request.query_params))
        await asyncio.sleep(self.delay_seconds)
        if not (self.frozen and self.tokens):
            await self._issue(request.query_params["resource"])
        return JSONResponse(
            {
                "access_token": self.tokens[-1],
                "expires_on": str(claims(self.tokens[-1])["exp"]),
                "resource": request.query_params["resource"],
                "token_type": "Bearer",
            }
        )

    async def _issue(self, resource: str) -> None:
        number = len(self.tokens)
        expires = math.ceil(time.time() + self.life_seconds)
        begins = int(time.time()) - 60
        body = {"oid": self.oid, "aud": resource, "exp": expires, "jti": str(number)}
        body |= {"iss": "https://sts.windows.net/tests/", "iat": begins, "nbf": begins}
        parts = [_encoded(part) for part in ({"alg": "RS256", "typ": "JWT"}, body)]
        token = ".".join([*parts, base64.urlsafe_b64encode(SIGNATURE.encode()).decode().rstrip("=")])
        if self.issued is not None:
            await self.issued(token)
        self.tokens.append(token)


class Gatekeeper:
    """One user of a redis-server, whose passwords are the issued tokens that have not expired.

    `async with Gatekeeper(redis, identity) as gate`. `redis` is connected as another user.
    """

    def __init__(self, redis: Redis, identity: IdentityServer) -> None:
        self._redis = redis
        self._identity = identity
        self._expiries: set[asyncio.Task[None]] = set()
        self.open = True  # False: new tokens are not accepted

    async def __aenter__(self) -> Self:
        await self._set("on", "~*", "&*", "+@all")
        self._identity.issued = self._issued
        return self

    async def __aexit__(self, *_: object) -> None:
        self._identity.issued = None
        for task in self._expiries:
            task.cancel()
        await asyncio.gather(*self._expiries, return_exceptions=True)

    async def clients(self) -> dict[str, list[str]]:
        """Return the ids of the connections that logged in with a token, grouped by client name."""
        found: dict[str, list[str]] = {}
        for client in await self._redis.client_list():
            if client["user"] == self._identity.oid:
                found.setdefault(client["name"], []).append(client["id"])
        return found

    async def authentications(self) -> int:
        """Return the number of AUTH commands that the server has received, including refused commands."""
        stats: dict[str, Any] = await self._redis.info("commandstats")
        return int(stats.get("cmdstat_auth", {}).get("calls", 0))

    async def _issued(self, token: str) -> None:
        if self.open:
            await self._set(f">{token}")
            self._expiries.add(asyncio.create_task(self._expire(token), name="token-expires"))

    async def _expire(self, token: str) -> None:
        await asyncio.sleep(claims(token)["exp"] - time.time())
        await self._set(f"<{token}")

    async def _set(self, *rules: str) -> None:
        await self._redis.execute_command("ACL", "SETUSER", self._identity.oid, *rules)


def claims(token: str) -> dict[str, Any]:
    """Return the claims in a token."""
    body = token.split(".")[1]
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return value


def _encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
