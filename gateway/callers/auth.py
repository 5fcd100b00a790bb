"""Who asks: nobody in particular, an API key, App Service's sign-in, or a JWT.

`owner` is what a stream and an Idempotency-Key belong to. A refusal is the same 401, whatever was wrong.
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
OWNER_CHARACTERS = 128  # of a name that an embedding application gives
OwnerOf = Callable[[Any], str | Awaitable[str | None] | None]
# A file that cannot be read, or has a wrong line, takes nobody's key away for this long: time to see the log
# and to mend it. A key that was revoked in it holds no longer than that: then no key does.
KEYS_HELD_SECONDS = 300.0
KEYS_MOST_BYTES = 64 * 1024 * 1024
# The same for no key and for a wrong one.
NO_KEY = (
    "Who asks is not known here: send an API key of this gateway, as `Authorization: Bearer <key>` or as "
    "`X-API-Key: <key>`."
)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("holdfast.auth")


class Auth(Protocol):
    """Tells who asks."""

    async def owner(self, headers: Headers) -> str:
        """The caller's name. Raises Unauthorized, or AuthUnavailable when it cannot be decided now."""

    async def caller(self, headers: Headers) -> Caller:
        """The same, and what chains are told of him. Raises as `owner`, and Forbidden for too many claims."""


class Open:
    """Everybody is the same nobody: for loopback, or behind something that asks."""

    async def owner(self, headers: Headers) -> str:
        """Always the same."""
        return ANONYMOUS

    async def caller(self, headers: Headers) -> Caller:
        """Nothing is known of him."""
        return Caller(ANONYMOUS)


class Keys:
    """API keys from a file of `name sha256-hex` lines, read again when it changes.

    A name may have several keys, so that one is replaced while both work. A file that becomes wrong, or goes
    away, changes nothing for `KEYS_HELD_SECONDS`; from then on nobody is let in until it is right again.
    Raises ValueError for a file that is wrong at the start.
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
        """The key's name; a key is found by its hash, so nothing of it is compared.

        Raises Unauthorized, or AuthUnavailable while the file has been wrong for too long.
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
        """A key says nothing but its name."""
        return Caller(await self.owner(headers))

    def _held_for(self) -> float:
        """Seconds for which the keys still hold, of a wrong file."""
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
        except UnicodeError:  # its own text quotes a piece of the file
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
    """App Service Authentication: the platform has signed the caller in and says so in headers of its own.

    It removes such headers from outside, so they are to be trusted there, and only there: the settings refuse
    this where the platform does not say that its sign-in is in front (`WEBSITE_AUTH_ENABLED`).
    """

    def __init__(self, claims: Sequence[str] = ()) -> None:
        self._claims = claims

    async def owner(self, headers: Headers) -> str:
        """Identity provider and the caller's id there."""
        named = headers.getlist("x-ms-client-principal-id")
        providers = headers.getlist("x-ms-client-principal-idp") or [""]
        if len(named) != 1 or len(providers) != 1 or not named[0]:
            raise Unauthorized
        return f"easyauth:{providers[0]}:{named[0]}"

    async def caller(self, headers: Headers) -> Caller:
        """The same, and the claims that the platform has found in what the provider said."""
        owner, principals = await self.owner(headers), headers.getlist("x-ms-client-principal")
        if not self._claims or not principals:
            return Caller(owner)
        if len(principals) > 1:
            raise Unauthorized
        return Caller(owner, chosen(self._claims, of_principal(principals[0])))


class Named:
    """The application that this gateway is a part of names the caller.

    `ask` gets the request and gives the owner, a string of 1 to 128 characters, or None for nobody.
    """

    def __init__(self, ask: OwnerOf) -> None:
        self._ask = ask

    async def caller(self, request: Any) -> Caller:
        """Who asks. Raises Unauthorized, TypeError for what is no owner, and whatever `ask` raises."""
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
    """What the settings ask for. Raises ValueError for a file of keys that is wrong or cannot be read."""
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
    """An API key, and its line for the file of keys. Raises ValueError for a name that is none."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes or underscores")
    key = "hf_" + secrets.token_urlsafe(KEY_BYTES)
    return key, f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
