"""Who this process is on Azure: tokens for Storage, the models and Redis, by DefaultAzureCredential.

Nothing of it is made, or even imported, before somebody asks; keys stay possible by not asking. Credentials
are one to a process and end with the gateway.

Redis's tokens come from redis-entraid's identity provider, in a thread, because it is synchronous. Renewal is
ours: redis-py 8.1's token manager asks within the event loop, does not apply its own time-out (whose default,
100 ms, no token endpoint keeps), and never renews again after a failure.
Invariant: one request for a Redis token is under way at most, and its thread ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gateway.redis.connect import Token
from gateway.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.identity.aio import DefaultAzureCredential

REDIS_SCOPE = "https://redis.azure.com/.default"
OPENAI_SCOPE = "https://cognitiveservices.azure.com/.default"
REQUEST_SECONDS = 10.0
CONNECT_SECONDS, READ_SECONDS = 3.0, 7.0  # of one HTTP request
# Of a token's life; apart, so that the processes of one deployment do not ask all at once.
RENEW_AT = (0.6, 0.75)
# An identity's endpoint gives the same token again until near its end: ask ever more often, up to this.
SHORTEST_PAUSE_SECONDS = 1.0
_BACKOFF_SECONDS = (0.5, 10.0)
_NAP_SECONDS = 60.0  # the Unix clock may jump, or the machine sleep: look at it now and then
_log = logging.getLogger("holdfast.identity")
_credentials: dict[str, DefaultAzureCredential] = {}


def credential(client_id: str = "") -> AsyncTokenCredential:
    """The process's credential; with a client id, that user-assigned identity's."""
    if client_id not in _credentials:
        from azure.identity.aio import DefaultAzureCredential

        _credentials[client_id] = DefaultAzureCredential(**_options(client_id))
    return _credentials[client_id]


def blocking_credential(client_id: str) -> TokenCredential:
    """One for a client that works in threads of its own."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(**_options(client_id))


def openai_token_provider(settings: Settings) -> Callable[[], Awaitable[str]]:
    """What `azure_ad_async_token_provider` takes; the credential keeps a token until it is near its end.

    Raises TimeoutError after 10 s, or what azure-identity raises.
    """

    async def token() -> str:
        async with asyncio.timeout(REQUEST_SECONDS):
            return (await credential(settings.azure_client_id).get_token(OPENAI_SCOPE)).token

    return token


async def close() -> None:
    """Let go of all credentials; who asks again gets new ones."""
    held = list(_credentials.values())
    _credentials.clear()
    for one in held:
        await one.close()


def _options(client_id: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retry_total": 1,  # the client's own default would go on for minutes
        "retry_backoff_factor": 0.1,
    }
    return options | ({"managed_identity_client_id": client_id} if client_id else {})


def redis_tokens(settings: Settings) -> RedisTokens | None:
    """What connections to Redis authenticate with; None when the URL says it."""
    if settings.redis_auth != "entra":
        return None
    return RedisTokens(settings.azure_client_id)


class RedisTokens:
    """`gateway.redis.connect.Credentials` for Redis: asked for at the first connect, and renewed until closed."""

    def __init__(self, client_id: str = "") -> None:
        self._client_id = client_id
        self._credential: Any = None
        self._asking: asyncio.Future[Token] | None = None
        self._token: Token | None = None
        self._failed = False  # the last request; the next one is being put off
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def current(self) -> Token:
        """A token that is valid now. Raises ConnectionError while there is none to be had."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="redis-tokens")
        while self._token is None or self._token.expires_at <= time.time():
            if self._failed:
                raise ConnectionError("there is no token for the store")
            await self._news.wait()
        return self._token

    async def after(self, token: Token) -> Token:
        """The one that follows; waits for it."""
        while self._token is None or self._token.secret == token.secret:
            await self._news.wait()
        return self._token

    async def close(self) -> None:
        """Renew no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._credential is not None:
            await asyncio.to_thread(self._credential.close)

    async def _keep(self) -> None:
        backoff = _BACKOFF_SECONDS[0]
        while True:
            try:
                self._token = await self._request()
            except Exception as error:
                _log.warning("no token for the store: %s; next try in %.1f s", _name(error), backoff)
                self._tell(failed=True)
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
                self._failed = False  # who comes now waits for this one's end
                continue
            backoff = _BACKOFF_SECONDS[0]
            self._tell(failed=False)
            left = self._token.expires_at - time.time()
            await _until(time.time() + max(SHORTEST_PAUSE_SECONDS, left * random.uniform(*RENEW_AT)))

    async def _request(self) -> Token:
        """One try, or the rest of one that took too long. Raises TimeoutError or RequestTokenErr."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().run_in_executor(None, self._ask)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await asyncio.shield(self._asking)
        finally:
            if self._asking.done():
                self._asking = None

    def _ask(self) -> Token:
        """In a thread; importing azure-identity alone takes a good part of a second."""
        from redis_entraid.identity_provider import DefaultAzureCredentialProvider

        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            self._credential = DefaultAzureCredential(**_options(self._client_id))
        answer = DefaultAzureCredentialProvider(self._credential, (REDIS_SCOPE,)).request_token()
        return Token(answer.try_get("oid"), answer.get_value(), answer.get_expires_at_ms() / 1000)

    def _tell(self, *, failed: bool) -> None:
        self._failed = failed
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _until(when: float) -> None:
    while (left := when - time.time()) > 0:  # noqa: ASYNC110 - nothing announces a time
        await asyncio.sleep(min(left, _NAP_SECONDS))


def _name(error: BaseException) -> str:
    """A foreign error's text may quote what the endpoint said: its type, and its cause's, will do."""
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else None
    return type(error).__name__ + (f" ({type(cause).__name__})" if cause else "")
