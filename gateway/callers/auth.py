"""Identify the caller: not at all, by an API key, by App Service's sign-in, or by a JWT.

`owner` is the name to which a stream and an Idempotency-Key belong. Every refusal is the same 401, whatever
the reason.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from starlette.datastructures import Headers

from gateway.callers.bearer import bearer
from gateway.callers.claims import Caller, chosen, names_of, of_principal
from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import AuthUnavailable, Unauthorized
from gateway.runtime.reread import Reread
from gateway.settings import Settings

KEY_BYTES = 32
OWNER_CHARACTERS = 128  # the longest owner name of an embedding application
OwnerOf = Callable[[Any], str | Awaitable[str | None] | None]
# If the file of keys cannot be read, or has a wrong line, the keys of the last correct file stay valid for
# this many seconds. That is time to see the error in the log and to correct the file. It also limits how long
# a key stays valid that was revoked in a wrong file. After that time no key is valid.
KEYS_HELD_SECONDS = 300.0
KEYS_MOST_BYTES = 64 * 1024 * 1024
# The answer to a request without a key, and to one with a wrong key.
NO_KEY = (
    "Who asks is not known here: send an API key of this gateway, as `Authorization: Bearer <key>` or as "
    "`X-API-Key: <key>`."
)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("holdfast.auth")


class Auth(Protocol):
    """Identifies callers."""

    async def owner(self, headers: Headers) -> str:
        """Return the caller's name. Raises Unauthorized, or AuthUnavailable if this cannot be decided now."""

    async def caller(self, headers: Headers) -> Caller:
        """Return the caller's name and the claims for chains.

        Raises the same as `owner`, and Forbidden for too many claims.
        """


class Open:
    """Does not identify callers.

    It is for a server on loopback, or behind another server that identifies callers.
    """

    async def owner(self, headers: Headers) -> str:
        """Return the same name for all callers."""
        return ANONYMOUS

    async def caller(self, headers: Headers) -> Caller:
        """Return a caller without claims."""
        return Caller(ANONYMOUS)


class Keys:
    """API keys from a file of `name sha256-hex` lines. The file is read again when it changes.

    A name may have several keys, so that a key can be replaced while both are valid. If the file becomes
    wrong or is deleted, the keys do not change for `KEYS_HELD_SECONDS`. After that all callers are refused
    until the file is correct again. The constructor raises ValueError for a wrong file.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._names: Mapping[str, str] = {}
        try:
            self._file = Reread(path, self._take, KEYS_MOST_BYTES)
        except OSError as error:
            raise ValueError(f"GATEWAY_KEYS_FILE cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"GATEWAY_KEYS_FILE: {error}") from None

    async def owner(self, headers: Headers) -> str:
        """Return the name of the caller's key.

        The key is found by its hash, so no part of the key itself is compared. Raises Unauthorized, or
        AuthUnavailable if the file has been wrong for too long.
        """
        self._file.look(self._wrong, self._right)
        if self._held_for() <= 0:
            raise AuthUnavailable
        shown = headers.getlist("x-api-key") or [bearer(headers)]
        given = shown[0] if len(shown) == 1 else ""
        name = self._names.get(hashlib.sha256(given.encode()).hexdigest()) if given else None
        if name is None:
            raise Unauthorized(NO_KEY)
        return f"key:{name}"

    async def caller(self, headers: Headers) -> Caller:
        """Return the caller without claims: a key has only a name."""
        return Caller(await self.owner(headers))

    def _held_for(self) -> float:
        """Return for how many seconds the keys remain valid although the file is wrong."""
        since = self._file.wrong_since
        return KEYS_HELD_SECONDS if since is None else since + KEYS_HELD_SECONDS - time.monotonic()

    def _wrong(self, why: str) -> None:
        left = self._held_for()
        what = f"hold for {left:.0f} s more" if left > 0 else "hold no more, and nobody is let in"
        _log.error("the keys that were read before %s: the file of keys is wrong: %s", what, why)

    def _right(self) -> None:
        _log.info("the file of keys is right again")

    def _take(self, text: bytes) -> None:
        try:
            lines = text.decode().splitlines()
        except UnicodeError:  # the error's own text would quote a part of the file
            raise ValueError("it is not text in UTF-8") from None
        names = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            match line.split():
                case [name, digest] if _NAME.fullmatch(name) and re.fullmatch(r"[0-9a-f]{64}", digest):
                    names[digest] = name
                case _:
                    raise ValueError(
                        f"{self._name}, line {number}: not `name sha256-hex`; "
                        "`holdfast key NAME` prints such a line"
                    )
        self._names = names
        _log.info("%d API keys of %d names", len(names), len(set(names.values())))


class EasyAuth:
    """App Service Authentication: the platform signs callers in and names them in special headers.

    The platform removes such headers from outside requests, so they can be trusted there, and only there. The
    settings refuse this mode unless the platform reports that its sign-in is active (`WEBSITE_AUTH_ENABLED`).
    """

    def __init__(self, claims: Sequence[str] = ()) -> None:
        self._claims = claims

    async def owner(self, headers: Headers) -> str:
        """Return the name of the identity provider, and the caller's id there."""
        named = headers.getlist("x-ms-client-principal-id")
        providers = headers.getlist("x-ms-client-principal-idp") or [""]
        if len(named) != 1 or len(providers) != 1 or not named[0]:
            raise Unauthorized
        return f"easyauth:{providers[0]}:{named[0]}"

    async def caller(self, headers: Headers) -> Caller:
        """Return the caller with the chosen claims.

        The claims are in the platform's header, which repeats what the identity provider reported.
        """
        owner, principals = await self.owner(headers), headers.getlist("x-ms-client-principal")
        if not self._claims or not principals:
            return Caller(owner)
        if len(principals) > 1:
            raise Unauthorized
        return Caller(owner, chosen(self._claims, of_principal(principals[0])))


class Named:
    """Identifies callers by a function of the application that contains this gateway.

    `ask` gets the request and returns the owner, a string of 1 to 128 characters, or None if it refuses the
    caller.
    """

    def __init__(self, ask: OwnerOf) -> None:
        self._ask = ask

    async def caller(self, request: Any) -> Caller:
        """Return the caller.

        Raises Unauthorized, TypeError if the result of `ask` is not a valid owner, and any exception of
        `ask`.
        """
        given = self._ask(request)
        owner = await given if inspect.isawaitable(given) else given
        if owner is None:
            raise Unauthorized
        if not isinstance(owner, str) or not 1 <= len(owner) <= OWNER_CHARACTERS or owner == ANONYMOUS:
            _log.error(
                "owner() must give a string of 1 to %d characters, other than %s, or None; it gave %s",
                OWNER_CHARACTERS,
                ANONYMOUS,
                f"one of {len(owner)}" if isinstance(owner, str) else type(owner).__name__,
            )
            raise TypeError("owner() gave no owner")
        return Caller(owner)


def auth_of(settings: Settings) -> Auth:
    """Return the Auth that the settings name.

    Raises ValueError for a file of keys that is wrong or cannot be read.
    """
    match settings.auth:
        case "keys":
            return Keys(Path(settings.keys_file))
        case "easyauth":
            return EasyAuth(names_of(settings.chain_claims))
        case "jwt":
            from gateway.callers.auth_jwt import Jwt

            return Jwt(settings)
    return Open()


def new_key(name: str) -> tuple[str, str]:
    """Create an API key, and its line for the file of keys. Raises ValueError for an invalid name."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes or underscores")
    key = "hf_" + secrets.token_urlsafe(KEY_BYTES)
    return key, f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
