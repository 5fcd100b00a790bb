"""Callers with a JWT of an OpenID issuer, checked with the keys that it publishes."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from typing import Any

import aiohttp
import jwt
from starlette.datastructures import Headers

from gateway.auth import bearer
from gateway.errors import AuthUnavailable, Unauthorized
from gateway.settings import Settings

# Asymmetric ones only: with an issuer's public keys a symmetric one would be a forgery (RFC 8725, 3.1).
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_SECONDS = 60  # between the issuer's clock and ours
DISCOVERY = "/.well-known/openid-configuration"
KEPT_SECONDS, RETRY_SECONDS, FETCH_SECONDS = 3600.0, 30.0, 5.0
DOCUMENT_BYTES = 256 * 1024
NONSENSE = (ValueError, KeyError, TypeError, AttributeError)  # what PyJWT raises for JSON of another shape
_log = logging.getLogger("holdfast.oidc")


class Jwt:
    """A bearer token of an issuer, checked with its published keys (RFC 7519, RFC 8725)."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._claim = settings.jwt_owner_claim
        self._keys = Jwks(settings.jwt_jwks_url, settings.jwt_issuer)

    async def owner(self, headers: Headers) -> str:
        """The claim that names the caller."""
        given = bearer(headers)
        try:
            kid = jwt.get_unverified_header(given).get("kid", "")
            claims = jwt.decode(
                given,
                await self._keys.key(str(kid)),
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", self._claim]},
            )
        except (
            jwt.PyJWTError,
            RecursionError,  # a header as deep as it is long
            TypeError,
            ValueError,
        ):  # the last two: a key of another kind than the token says
            raise Unauthorized from None
        named = claims[self._claim]
        if type(named) not in (str, int) or named == "":  # nobody, or more than one
            raise Unauthorized
        return f"jwt:{named}"


class Jwks:
    """An issuer's keys, kept for an hour; asked again for an unknown one, at most twice a minute."""

    def __init__(self, url: str, issuer: str) -> None:
        self._url = url
        self._issuer = issuer
        self._known: dict[str, Any] = {}
        self._read_at = self._tried_at = -math.inf
        self._reading = asyncio.Lock()

    async def key(self, kid: str) -> Any:
        """The key of this id. Raises Unauthorized, or AuthUnavailable while the issuer was never reached."""
        if kid not in self._known or time.monotonic() - self._read_at > KEPT_SECONDS:
            async with self._reading:
                if time.monotonic() - self._tried_at > RETRY_SECONDS:
                    await self._read()
        if kid in self._known:
            return self._known[kid]
        raise Unauthorized if self._known else AuthUnavailable

    async def _read(self) -> None:
        self._tried_at = time.monotonic()
        bound = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=bound) as http:
                url = self._url or str(
                    (await _document(http, self._issuer.rstrip("/") + DISCOVERY))["jwks_uri"]
                )
                found = jwt.PyJWKSet.from_dict(await _document(http, url))
        except (aiohttp.ClientError, TimeoutError, jwt.PyJWTError, *NONSENSE) as error:
            _log.warning("the issuer's keys cannot be read: %s", type(error).__name__)
            return
        self._known = {key.key_id: key.key for key in found.keys if key.key_id}
        self._read_at = time.monotonic()


async def _document(http: Any, url: str) -> Any:
    """A JSON object from an issuer. Raises ValueError for a longer one than anybody has."""
    async with http.get(url, headers={"accept": "application/json"}) as answer:
        answer.raise_for_status()
        body = b""
        async for piece in answer.content.iter_any():  # `read(n)` would answer the first piece
            body += piece
            if len(body) > DOCUMENT_BYTES:
                raise ValueError("too long")
    return json.loads(body)
