"""`python -m gateway ask "…"`: one question, its tokens as they come, its stages as progress on stderr.

It survives its connection. Ctrl-C cancels the stream at the gateway, not only here.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from rich.console import Console
from rich.status import Status

from gateway.client import Event, Gateway, GatewayError, Refused, Stream, StreamCancelled

FAILED, CANCELLED = 1, 130  # exit codes; the second is a shell's for SIGINT


class Shown:
    """What is on the screen: text on stdout, everything else on stderr."""

    def __init__(self, chain: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._spinner = Status(f"{chain} …", console=self._console)
        self._at_line_start = True
        self._last_stage = ""

    def __enter__(self) -> Shown:
        self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()
        self._end_line()

    def show(self, event: Event) -> None:
        """One event."""
        match event.type, event.data:
            case "message", {"delta_content": str(text)}:
                self._spinner.stop()
                sys.stdout.write(text)
                sys.stdout.flush()
                self._at_line_start = text.endswith("\n")
            case "stage", {"name": name, "state": "started", "index": int(index), "count": int(count)}:
                if count > 1:
                    self._say(f"[{index + 1}/{count}] {name}")
                self._spinner.update(f"{name} …")
                self._spinner.start()
            case "tool", {"name": name, "state": state}:
                self._say(f"tool {name}: {state}")
            case "reset", {}:
                self._say("what was said of this stage is void; it begins anew")

    def say(self, text: str) -> None:
        """A line on stderr."""
        self._spinner.stop()
        self._say(text)

    def _say(self, text: str) -> None:
        self._end_line()
        self._console.print(text, markup=False, style="dim")

    def _end_line(self) -> None:
        if not self._at_line_start:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._at_line_start = True


async def ask(url: str, key: str, question: str, chain: str) -> int:
    """Follow one question to its end; answers the process's exit code."""
    async with Gateway(url, key=key) as gateway:
        stream = gateway.stream(user=question, chain=chain or None)
        with Shown(chain or "chat") as shown:
            try:
                async for event in stream:
                    shown.show(event)
                await stream.result()
            except asyncio.CancelledError:
                return await _cancel(gateway, stream, shown)
            except StreamCancelled:
                shown.say("cancelled")
                return CANCELLED
            except Refused as error:
                shown.say(f"refused: {error}")
                return FAILED
            except GatewayError as error:
                shown.say(f"failed: {error}")
                return FAILED
    return 0


async def _cancel(gateway: Gateway, stream: Stream, shown: Shown) -> int:
    """Ctrl-C: the model's call is to end as well."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    shown.say("cancelled")
    if stream.id:
        with suppress(GatewayError):  # it goes on there, then, and ends by itself
            async with asyncio.timeout(5):
                await gateway.cancel(stream.id)
    return CANCELLED
