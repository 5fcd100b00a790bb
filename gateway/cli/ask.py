"""`python -m gateway ask "…"`: one question, its tokens as they come, its stages as progress on stderr.

It survives its connection. Ctrl-C cancels the stream at the gateway, not only here; so does a reader of its
output that goes away.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from rich.console import Console
from rich.status import Status

from gateway.client import Event, Gateway, GatewayError, Refused, Stream, StreamCancelled

FAILED, CANCELLED, PIPE_CLOSED = 1, 130, 141  # exit codes; the others are a shell's for SIGINT and SIGPIPE
SILENT_SECONDS = 3.0  # then it says that it is still trying
CANCEL_SECONDS = 5.0
# A terminal obeys control characters, and what it is sent here a model has written.
_HARMLESS = dict.fromkeys((*range(32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}") | {
    9: "\t",
    10: "\n",
}


class Shown:
    """What is on the screen: what the chain has said on stdout, everything else on stderr."""

    def __init__(self, chain: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._spinner = Status(f"{chain} …", console=self._console)
        self._at_line_start = True

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
                self._write(text)
            case "custom", {"name": "result", "data": value}:  # of a chain that says no text
                self._write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
            case "stage", {"name": name, "state": "started", "index": int(index), "count": int(count)}:
                if count > 1:
                    self._say(f"[{index + 1}/{count}] {name}")
                self._spinner.update(f"{name} …")
                self._spinner.start()
            case "tool", {"name": name, "state": state}:
                self._say(f"tool {name}: {state}")
            case "reset", {}:
                self._say("what was said of this stage is void; it begins anew")
            case "done", {"interrupts": [*asked]}:
                for one in asked:
                    self._say(f"it has stopped to ask: {json.dumps(one['value'], ensure_ascii=False)}")

    def say(self, text: str) -> None:
        """A line on stderr."""
        self._spinner.stop()
        self._say(text)

    def _write(self, text: str) -> None:
        self._spinner.stop()
        sys.stdout.write(text.translate(_HARMLESS) if sys.stdout.isatty() else text)
        sys.stdout.flush()
        self._at_line_start = text.endswith("\n")

    def _say(self, text: str) -> None:
        self._end_line()
        self._console.print(text, markup=False, style="dim")

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._at_line_start = True
            sys.stdout.write("\n")
            sys.stdout.flush()


async def ask(url: str, key: str, question: str, chain: str) -> int:
    """Follow one question to its end; answers the process's exit code. Raises ValueError for a wrong URL."""
    async with Gateway(url, key=key) as gateway:
        stream = gateway.stream(user=question, chain=chain or None)
        try:
            with Shown(chain or "chat") as shown:
                return await _followed(stream, shown, url)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may its last flush fail
            await _cancelled(stream)
            return PIPE_CLOSED


async def _followed(stream: Stream, shown: Shown, url: str) -> int:
    said = f"no word from {url} yet; it is tried again"
    silence = asyncio.get_running_loop().call_later(SILENT_SECONDS, shown.say, said)
    try:
        async for event in stream:
            silence.cancel()
            shown.show(event)
        await stream.result()
    except asyncio.CancelledError:  # Ctrl-C
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        done = await _cancelled(stream)
        shown.say(
            "cancelled" if done else "not cancelled: the gateway could not be told, so it may go on there"
        )
        return CANCELLED
    except StreamCancelled:
        shown.say("cancelled")
        return CANCELLED
    except Refused as error:
        shown.say(f"refused: {error}")
        return FAILED
    except GatewayError as error:
        shown.say(f"failed: {error}")
        return FAILED
    finally:
        silence.cancel()
    return 0


async def _cancelled(stream: Stream) -> bool:
    """The model's call is to end as well; whether the gateway knows."""
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await stream.cancel()
    except (GatewayError, TimeoutError):
        return False
    return True
