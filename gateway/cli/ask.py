"""The commands that ask a gateway over HTTP, such as `python -m gateway ask "…"`.

The text of a stream is printed as it arrives. Its stages are shown as progress on stderr. If the connection
breaks, the command connects again. For `ask`, Ctrl-C cancels the stream at the gateway too. The same happens
when the program that reads the output ends. `follow` never cancels the stream.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import httpx
from rich.console import Console
from rich.status import Status

from gateway.client import (
    Event,
    Gateway,
    GatewayError,
    Refused,
    Stream,
    StreamCancelled,
    StreamFailed,
    Unreachable,
)

TOY = "SmolLM2-135M-Instruct"  # the name of the packaged model in its text events
UNAUTHORIZED = 401
# The exit codes. The last two are those that a shell uses for SIGINT and SIGPIPE.
FAILED, CANCELLED, PIPE_CLOSED = 1, 130, 141
NOBODY_THERE = "If no gateway runs there: `holdfast run` starts one, and --url or GATEWAY_URL names another."
SILENT_SECONDS = 3.0  # after this time without an event, a line says that it is still trying
CANCEL_SECONDS = 5.0
# A terminal obeys control characters, and the text comes from a model. So control characters are replaced.
_HARMLESS = dict.fromkeys((*range(32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}") | {
    9: "\t",
    10: "\n",
}


class Shown:
    """The output of a stream on a screen: the chain's text on stdout, everything else on stderr."""

    def __init__(self, chain: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._spinner = Status(f"{chain} …", console=self._console)
        self._at_line_start = True
        self._is_toy = False

    def __enter__(self) -> Shown:
        self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()
        self._end_line()

    def show(self, event: Event) -> None:
        """Show one event."""
        match event.type, event.data:
            case "message", {"delta_content": str(text)}:
                self._is_toy = event.data.get("deployment") == TOY
                self._write(text)
            case "custom", {"name": "result", "data": value}:  # the result of a chain without text
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
            case "done", {}:
                if self._is_toy:
                    self._say(
                        f"{TOY} is a toy: set OPENAI_API_KEY and start the gateway again for a real model"
                    )
                for one in event.data.get("interrupts", ()):
                    self._say(f"it has stopped to ask: {json.dumps(one['value'], ensure_ascii=False)}")

    def say(self, text: str) -> None:
        """Write a line to stderr."""
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


def asked(question: str, params: str) -> tuple[str, dict[str, Any] | None]:
    """Return the question (`-`: read it from stdin) and the params.

    Raises ValueError if they are no JSON object.
    """
    if question == "-":
        question = sys.stdin.read()
    if not params:
        return question, None
    try:
        given = json.loads(params)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise ValueError("--params: must be a JSON object")
    return question, given


async def show(stream: Stream, url: str, name: str, *, as_json: bool, cancels: bool) -> int:
    """Follow a stream to its end and return the process's exit code.

    `cancels`: cancel the stream when the program that reads the output ends.
    """
    try:
        if as_json:
            return await _followed(stream, Lines(), url, cancels=cancels)
        with Shown(name) as shown:
            return await _followed(stream, shown, url, cancels=cancels)
    except BrokenPipeError:
        # the last flush of stdout must not fail either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if cancels:
            await _cancelled(stream)
        return PIPE_CLOSED


class Lines:
    """The output for programs: one JSON object per line on stdout, and messages on stderr."""

    def show(self, event: Event) -> None:
        """Write one event."""
        print(json.dumps({"id": event.id, "type": event.type, "data": event.data}), flush=True)

    def say(self, text: str) -> None:
        """Write a line to stderr."""
        print(text, file=sys.stderr, flush=True)


async def _followed(stream: Stream, shown: Shown | Lines, url: str, *, cancels: bool) -> int:
    watching = asyncio.create_task(_watch_silence(stream, shown, url), name="silence")
    try:
        async for event in stream:
            if event.type != "start":  # a waiting job has only the `start` event
                watching.cancel()
            shown.show(event)
        await stream.result()
    except asyncio.CancelledError:  # Ctrl-C
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        if not cancels:
            return CANCELLED
        done = await _cancelled(stream)
        shown.say(
            "cancelled" if done else "not cancelled: the gateway could not be told, so it may go on there"
        )
        return CANCELLED
    except StreamCancelled:
        shown.say("cancelled")
        return CANCELLED
    except Refused as error:
        shown.say(_told(error))
        return FAILED
    except GatewayError as error:
        shown.say(_told(error))
        return FAILED
    finally:
        watching.cancel()
    return 0


async def _watch_silence(stream: Stream, shown: Shown | Lines, url: str) -> None:
    """Say why no event arrives: the gateway does not answer, or no worker runs the job."""
    await asyncio.sleep(SILENT_SECONDS)
    if not stream.last_event_id:
        shown.say(f"no word from {url} yet; it is tried again. {NOBODY_THERE}")
        return
    async with httpx.AsyncClient(timeout=SILENT_SECONDS) as http:
        try:
            told = (await http.get(f"{url.rstrip('/')}/ready")).json()
        except (httpx.HTTPError, ValueError):
            return  # the stream itself reports this error
    if isinstance(told, dict) and told.get("workers") == {"state": "none_seen"}:
        shown.say(
            "the job waits: no worker takes jobs there. `holdfast worker` starts one, with the same REDIS_URL"
        )


def _told(error: GatewayError) -> str:
    """Return a message that says what went wrong and what to do."""
    if isinstance(error, Refused):
        key = " Your key: GATEWAY_KEY, or --key." if error.status == UNAUTHORIZED else ""
        return f"refused: {error}{key}"
    if isinstance(error, Unreachable):
        return f"failed: {error}. {NOBODY_THERE}"
    detail = f"\n{error.detail}" if isinstance(error, StreamFailed) and error.detail else ""
    return f"failed: {error}{detail}"


async def cancel(gateway: Gateway, stream_id: str, *, as_json: bool) -> int:
    """Cancel a stream and print its status, or its status document. Return the exit code."""
    try:
        told = await gateway.cancel(stream_id)
    except GatewayError as error:
        print(_told(error), file=sys.stderr)
        return FAILED
    print(json.dumps(told) if as_json else told["status"])
    return 0


async def chains(gateway: Gateway, *, as_json: bool) -> int:
    """Print the chains, one per line with its stages, or print the document. Return the exit code."""
    try:
        told = await gateway.chains()
    except GatewayError as error:
        print(_told(error), file=sys.stderr)
        return FAILED
    if as_json:
        print(json.dumps(told))
        return 0
    for one in told["chains"]:
        print(" ".join([one["name"], *(one["stages"] if len(one["stages"]) > 1 else ())]))
    return 0


async def _cancelled(stream: Stream) -> bool:
    """Cancel the stream, so that the call to the model ends. Return whether the gateway has confirmed it."""
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await stream.cancel()
    except (GatewayError, TimeoutError):
        return False
    return True
