"""Identify callers by a JWT of an OpenID issuer. The published keys of the issuer verify the JWT."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import jwt
from starlette.datastructures import Headers

from gateway.callers.bearer import bearer
from gateway.callers.claims import Caller, chosen, names_of
from gateway.protocol.errors import AuthUnavailable, Forbidden, Unauthorized
from gateway.settings import Settings
from gateway.settings.rules import keeps_keys

# Only asymmetric algorithms. With a symmetric one, anybody could sign with the issuer's public keys (RFC
# 8725, 3.1).
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_SECONDS = 60  # allowed difference between the clocks of the issuer and the gateway
DISCOVERY = "/.well-known/openid-configuration"
KEPT_SECONDS, RETRY_SECONDS, FETCH_SECONDS = 3600.0, 30.0, 5.0
# Keys that cannot be read again are valid for this time: the issuer may have withdrawn one.
HELD_SECONDS = 86_400.0
SHORTEST_RSA_BITS = 2048  # shortest allowed RSA key (RFC 7518, 3.3)
# The header types of an access token: RFC 9068, 2.1. Most issuers, for example Entra, write JWT or nothing.
ACCESS_TYPES = ("at+jwt", "jwt", "")
# Claims by which issuers distinguish kinds of tokens: Keycloak's `typ` and Cognito's `token_use`. The first
# mapping has their values for an access token, the second has their values for other tokens.
ACCESS_KINDS = {"typ": "bearer", "token_use": "access"}
OTHER_KINDS = {"typ": ("id", "refresh", "offline", "logout"), "token_use": ("id", "refresh")}
# Claims that only other tokens have: ID tokens (OpenID Connect Core, 2 and 3.3.2.11), and logout tokens and
# other security events (RFC 8417, 2.2).
FOREIGN_CLAIMS = ("nonce", "at_hash", "c_hash", "events")
DOCUMENT_BYTES = 256 * 1024
# what PyJWT raises for JSON with a wrong structure
NONSENSE = (ValueError, KeyError, TypeError, AttributeError)
_log = logging.getLogger("holdfast.oidc")


class Jwt:
    """Identifies callers by access tokens, verified with the issuer's keys (RFC 7519, RFC 8725, RFC 9068)."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._claim = settings.jwt_owner_claim
        self._scope = settings.jwt_required_scope
        self._role = settings.jwt_required_role
        self._chain_claims = names_of(settings.chain_claims)
        self._keys = Jwks(settings.jwt_jwks_url, settings.jwt_issuer)

    async def owner(self, headers: Headers) -> str:
        """Return the value of the claim that names the caller. Raises the same as `caller`."""
        return (await self.caller(headers)).owner

    async def caller(self, headers: Headers) -> Caller:
        """Return the caller's name from its claim, and the claims for chains.

        Raises Unauthorized, Forbidden if the required scope or role is missing, or AuthUnavailable.
        """
        given = bearer(headers)
        try:
            header = jwt.get_unverified_header(given)
            kid = header.get("kid", "")
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
            RecursionError,  # a header with too many levels
            TypeError,
            ValueError,
        ):  # TypeError and ValueError: the key has another type than the token says
            raise Unauthorized from None
        named = claims[self._claim]
        if type(named) not in (str, int) or named == "":  # the claim contains no name, or several names
            raise Unauthorized
        if not is_access_token(header, claims):
            raise Unauthorized
        if self._scope and self._scope not in _names(claims, "scope", "scp"):
            raise Forbidden("the token has not the scope that this gateway asks for")
        if self._role and self._role not in _names(claims, "roles"):
            raise Forbidden("the token has not the role that this gateway asks for")
        return Caller(f"jwt:{named}", chosen(self._chain_claims, claims))


def is_access_token(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    """Return whether a token with a valid signature is an access token, as far as the token shows this.

    An ID token is not for an API: it tells a client which user has signed in. If client and API have one
    registration, an ID token has the same issuer, audience and keys as an access token. Only `typ` and some
    claims differ. An ID token without these differences cannot be recognized. A required scope refuses it,
    because no ID token has a scope.
    """
    kind = str(header.get("typ") or "").lower().removeprefix("application/")
    if kind not in ACCESS_TYPES:
        return False
    told = {name: str(claims.get(name, "")).lower() for name in ACCESS_KINDS}
    if any(told[name] in others for name, others in OTHER_KINDS.items()):
        return False
    # Keycloak before 24 writes `nonce` into access tokens too. So a token that declares itself an access
    # token may have it.
    says_so = kind == "at+jwt" or any(told[name] == word for name, word in ACCESS_KINDS.items())
    return not any(name in claims for name in FOREIGN_CLAIMS if name != "nonce" or not says_so)


def _names(claims: Mapping[str, Any], *claim: str) -> set[str]:
    """Return the names in these claims.

    A claim is a text of names separated by spaces (RFC 8693, 4.2), or a list of names.
    """
    found: set[str] = set()
    for given in (claims.get(name) for name in claim):
        if isinstance(given, str):
            found |= set(given.split())
        elif isinstance(given, list):
            found |= {item for item in given if isinstance(item, str)}
    return found


class Jwks:
    """The keys of an issuer, kept for an hour.

    For an unknown key they are read again, at most twice a minute.

    If the issuer cannot be reached, the known keys stay valid for a day.
    """

    def __init__(self, url: str, issuer: str) -> None:
        self._url = url
        self._issuer = issuer
        self._known: dict[str, Any] = {}
        self._read_at = self._tried_at = -math.inf
        self._reading = asyncio.Lock()

    async def key(self, kid: str) -> Any:
        """Return the key with this id.

        Raises Unauthorized for an unknown key. Raises AuthUnavailable if no keys could be read within the
        last day.
        """
        if kid not in self._known or time.monotonic() - self._read_at > KEPT_SECONDS:
            async with self._reading:
                if time.monotonic() - self._tried_at > RETRY_SECONDS:
                    await self._read()
        if time.monotonic() - self._read_at > HELD_SECONDS:
            raise AuthUnavailable
        if kid in self._known:
            return self._known[kid]
        raise Unauthorized if self._known else AuthUnavailable

    async def _read(self) -> None:
        self._tried_at = time.monotonic()
        bound = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=bound) as http:
                url = self._url or await self._discovered(http)
                found = jwt.PyJWKSet.from_dict(await _document(http, url))
        except Untrusted as error:
            _log.warning("the issuer's keys are not taken: %s", error)
            return
        except (aiohttp.ClientError, TimeoutError, jwt.PyJWTError, *NONSENSE) as error:
            _log.warning("the issuer's keys cannot be read: %s", type(error).__name__)
            return
        known = {key.key_id: key for key in found.keys if key.key_id}
        weak = {kid for kid, key in known.items() if _is_weak(key)}
        if weak:
            _log.warning("%d of the issuer's RSA keys have under %d bits", len(weak), SHORTEST_RSA_BITS)
        self._known = {kid: key.key for kid, key in known.items() if kid not in weak}
        self._read_at = time.monotonic()

    async def _discovered(self, http: Any) -> str:
        """Return the URL of the keys, from the issuer's discovery document. Raises Untrusted.

        The document must name exactly this issuer (OpenID Connect Discovery, 4.3; RFC 8414, 3.3).
        """
        found = await _document(http, self._issuer.rstrip("/") + DISCOVERY)
        if found["issuer"] != self._issuer:
            raise Untrusted("its discovery document names another issuer than GATEWAY_JWT_ISSUER")
        url = str(found["jwks_uri"])
        if not keeps_keys(url):
            raise Untrusted("its discovery document names a place for them that is not https://")
        return url


class Untrusted(Exception):
    """The issuer's answer cannot be trusted. The text of this error is written by the gateway."""


def _is_weak(key: jwt.PyJWK) -> bool:
    return key.key_type == "RSA" and key.key.key_size < SHORTEST_RSA_BITS


async def _document(http: Any, url: str) -> Any:
    """Read a JSON object from an issuer. Raises ValueError if it is longer than DOCUMENT_BYTES.

    Raises Untrusted for a redirect, which may lead to plain http or to another server.
    """
    async with http.get(url, headers={"accept": "application/json"}, allow_redirects=False) as answer:
        if answer.status // 100 == 3:
            raise Untrusted("it answers with a redirect")
        answer.raise_for_status()
        body = b""
        async for piece in answer.content.iter_any():  # `read(n)` would return only the first piece
            body += piece
            if len(body) > DOCUMENT_BYTES:
                raise ValueError("too long")
    return json.loads(body)
