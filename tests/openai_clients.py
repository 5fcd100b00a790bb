"""OpenAI's official clients at our hosts: PyPI `openai` in this process, npm `openai` in a separate process.

A stream that was cut is continued after the last `sequence_number`, as the documentation of the clients says.
The clients do not do this by themselves.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import APIConnectionError, AsyncOpenAI

from tests.hosts import JSON
from tests.support.programs import node

ENDS = ("response.completed", "response.failed", "response.incomplete")
NOBODYS_KEY = "nobody asks for it"


@dataclass(slots=True)
class Seen:
    """What a client received of a response: its events as JSON, the final response, and the number of
    cuts."""

    events: list[dict[str, Any]] = field(default_factory=list)
    response: dict[str, Any] = field(default_factory=dict)
    text: str = ""  # text of the final response, as the client assembles it
    cuts: int = 0

    @property
    def kinds(self) -> list[str]:
        """Return the types of the events. Consecutive pieces of text count once."""
        names = [event["type"].removeprefix("response.") for event in self.events]
        return [
            name for at, name in enumerate(names) if not name.endswith("text.delta") or names[at - 1] != name
        ]

    @property
    def numbers(self) -> list[int]:
        return [event["sequence_number"] for event in self.events]

    @property
    def standing(self) -> str:
        """Return the text of the messages that are not void, assembled from the pieces."""
        pieces: dict[int, str] = {}
        for event in self.events:
            if event["type"] == "response.output_text.delta":
                pieces[event["output_index"]] = pieces.get(event["output_index"], "") + event["delta"]
            elif event["type"] == "response.output_item.done" and event["item"].get("status") == "incomplete":
                pieces.pop(event["output_index"], None)
        return "".join(pieces.values())


@asynccontextmanager
async def python(
    url: str | httpx.URL, key: str = NOBODYS_KEY, retries: int = 0
) -> AsyncIterator[AsyncOpenAI]:
    """Open the client of PyPI."""
    async with AsyncOpenAI(base_url=f"{str(url).rstrip('/')}/v1", api_key=key, max_retries=retries) as client:
        yield client


async def javascript(
    url: str | httpx.URL, call: str, key: str = NOBODYS_KEY, **given: Any
) -> list[dict[str, Any]]:
    """Return the output of tests/node/openai.mjs for a call of npm's client."""
    return await node("openai.mjs", str(url).rstrip("/"), key, json.dumps({call: given}))


async def go_on(client: AsyncOpenAI, seen: Seen, stream: Any = None, response_id: str = "") -> None:
    """Read a response to its end, and continue after each cut of the connection."""
    while not (seen.events and seen.events[-1]["type"] in ENDS):
        try:
            if stream is None:
                after: Any = {"starting_after": seen.numbers[-1]} if seen.events else {}
                stream = await client.responses.retrieve(response_id, stream=True, **after)
            async for event in stream:
                seen.events.append(event.to_dict())
                response_id = event.response.id if hasattr(event, "response") else response_id
                if event.type in ENDS:
                    seen.response, seen.text = event.response.to_dict(), event.response.output_text
                    break
            else:
                raise AssertionError("a clean close before the end")
        except APIConnectionError:
            seen.cuts += 1
        stream = None


async def by_python(url: str, body: dict[str, Any]) -> Seen:
    """Start a response with the Python client and read it."""
    seen = Seen()
    async with python(url) as client:
        await go_on(client, seen, await client.responses.create(**body, stream=True))
    return seen


async def by_javascript(url: str, body: dict[str, Any]) -> Seen:
    """Start a response with the JavaScript client and read it."""
    return seen_by(await javascript(url, "create", body=body))


async def follow_python(url: str, response_id: str) -> Seen:
    """Read a response from its beginning that another client has started."""
    seen = Seen()
    async with python(url) as client:
        await go_on(client, seen, response_id=response_id)
    return seen


async def follow_javascript(url: str, response_id: str) -> Seen:
    """Read a response from its beginning with the JavaScript client; another client has started it."""
    return seen_by(await javascript(url, "follow", id=response_id))


def seen_by(said: list[dict[str, Any]]) -> Seen:
    """Return what the script's client received, from the output of the script."""
    assert "result" in said[-1], said[-1]
    seen = Seen([line["event"] for line in said if "event" in line], said[-1]["result"])
    messages = [item for item in seen.response["output"] if item["type"] == "message"]
    seen.text = "".join(part["text"] for item in messages for part in item["content"])
    seen.cuts = sum("cut" in line for line in said)
    return seen


Starting = Callable[[str, dict[str, Any]], Coroutine[Any, Any, Seen]]
BOTH = {"python": by_python, "javascript": by_javascript}


def stream_of(response_id: str) -> str:
    """Return the path of the response in our own format."""
    return f"/stream/{response_id.partition('_')[2]}"


async def status(http: httpx.AsyncClient, response_id: str, **headers: str) -> dict[str, Any]:
    """Return the status document of a response's stream."""
    answer = await http.get(stream_of(response_id), headers={**JSON, **headers})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document
