"""A2A's official Python client, unmodified, at our hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.client import ClientCallContext
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict, ParseDict


@asynccontextmanager
async def client_of(
    url: str, chain: str = "chat", *, headers: Mapping[str, str] | None = None, **config: Any
) -> AsyncIterator[Client]:
    """Open a client of a chain from the agent card at its well-known path."""
    async with httpx.AsyncClient(timeout=30, headers=dict(headers or {})) as http:
        card = await A2ACardResolver(http, f"{url.rstrip('/')}/a2a/{chain}").get_agent_card()
        client = ClientFactory(ClientConfig(httpx_client=http, **config)).create(card)
        yield client


def asked(*parts: Mapping[str, Any], **fields: Any) -> a2a.SendMessageRequest:
    """Make a message from these parts. `fields` can be `message_id`, `task_id`, `context_id`, or a field of
    the request."""
    names = {name: fields.pop(name) for name in ("message_id", "task_id", "context_id") if name in fields}
    message = {
        "messageId": names.get("message_id") or str(uuid4()),
        "role": "ROLE_USER",
        "parts": [dict(part) for part in parts],
    }
    message |= {"taskId": names["task_id"]} if names.get("task_id") else {}
    message |= {"contextId": names["context_id"]} if names.get("context_id") else {}
    made = a2a.SendMessageRequest()
    ParseDict({"message": message, **fields}, made)
    return made


def text(words: str) -> dict[str, Any]:
    return {"text": words}


def told(event: Any) -> dict[str, Any]:
    """Return an event of the client as JSON values."""
    made: dict[str, Any] = MessageToDict(event)
    return made


async def sent(client: Client, request: a2a.SendMessageRequest, **headers: str) -> list[dict[str, Any]]:
    """Send a message and return all events that the client delivers for it."""
    context = ClientCallContext(service_parameters=dict(headers)) if headers else None
    return [told(event) async for event in client.send_message(request, context=context)]


class Assembled:
    """A task that is assembled from events, as a client does it."""

    def __init__(self, events: list[dict[str, Any]] | None = None) -> None:
        self.id = self.context = ""
        self.states: list[str] = []
        self.artifacts: dict[str, list[dict[str, Any]]] = {}
        self.whole: set[str] = set()
        self.status: dict[str, Any] = {}
        for event in events or ():
            self.take(event)

    def take(self, event: dict[str, Any]) -> None:
        [(kind, value)] = event.items()
        if kind == "task":
            self.id, self.context = value["id"], value["contextId"]
            self.artifacts = {one["artifactId"]: list(one["parts"]) for one in value.get("artifacts", ())}
        assert (value.get("taskId", self.id), value["contextId"]) == (self.id, self.context)
        if "status" in value:
            self.status = value["status"]
            if self.states[-1:] != [value["status"]["state"]]:
                self.states.append(value["status"]["state"])
        if "artifact" in value:
            name, parts = value["artifact"]["artifactId"], value["artifact"]["parts"]
            self.artifacts[name] = (self.artifacts[name] if value.get("append") else []) + list(parts)
            self.whole |= {name} if value.get("lastChunk") else set()

    @property
    def texts(self) -> list[str]:
        """Return the text of each artifact."""
        return ["".join(part.get("text", "") for part in parts) for parts in self.artifacts.values()]
