"""A requested stream: its question, its POSTs, its cancel, and its allowed ends."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from time import monotonic

import httpx

from tests.chaos import chains
from tests.chaos.parts import Part, content
from tests.chaos.stage import Stage
from tests.chaos.tally import Tally

POST_SECONDS = 30.0
STAGED_SHARE = 0.3  # share of the streams with several stages
_WORDS = (
    "river",
    "stone",
    "data: x",
    "\n\n",
    "“quoted”",
    "naïve",
    "🌊",
    "id: 7-abcd\n",
    "\u2028",
    "event: done",
)


@dataclass(slots=True)
class Asked:
    """One question and its stream."""

    name: str
    parts: list[Part]  # one for each stage run; one part: the chain is `chat`
    key: str = ""
    cancel_after: float | None = None
    id: str = ""
    asked_at: float = 0.0  # start of the POST whose 202 came at `accepted_at`
    accepted_at: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # a reader has received its end, or 404
    gone: bool = False  # answered 404 after its 202

    @property
    def body(self) -> dict[str, str]:
        if len(self.parts) == 1:
            return {"user": content(self.parts[0].told)}
        return {"chain": chains.NAME, "user": json.dumps([part.told for part in self.parts])}


def ask(rng: random.Random, number: int) -> Asked:
    """Make question number `number`: an answer of 1 to 9 s, with one or three stages."""
    name = f"q{number}"
    count = rng.randint(3, 6) if rng.random() < STAGED_SHARE else 1
    seconds = rng.uniform(1, 9) / count
    return Asked(
        name,
        [_part(rng, f"{name} {run}", seconds, most=60 // count) for run in range(count)],
        key=f"key-{number}" if rng.random() < 0.5 else "",
        cancel_after=rng.uniform(0, 6) if rng.random() < 0.1 else None,
    )


def _part(rng: random.Random, name: str, seconds: float, most: int) -> Part:
    """Make an answer of small pieces, sometimes of big ones."""
    count = rng.randint(8, most)
    big = rng.random() < 0.1
    chunks = tuple(rng.choice(_WORDS) + " " * (2000 if big else 1) + str(n) + " " for n in range(count))
    vary_at = rng.randrange(count) if rng.random() < 0.25 else None
    return Part(name, chunks, seconds / count, vary_at)


class Caller:
    """Send POSTs, repeat them, and cancel."""

    def __init__(self, stage: Stage, tally: Tally, client: httpx.AsyncClient) -> None:
        self._stage = stage
        self._tally = tally
        self._client = client

    async def start(self, asked: Asked, rng: random.Random) -> bool:
        """Send the POST until a 202 comes if there is a key, else once; return whether the stream was
        accepted."""
        deadline = monotonic() + POST_SECONDS
        while monotonic() < deadline:
            began = monotonic()
            found = await self._post(asked, rng)
            if found:
                asked.id, asked.asked_at, asked.accepted_at = found, began, monotonic()
                return True
            if not asked.key:
                return False
            await asyncio.sleep(rng.uniform(0.1, 0.5))
        return False

    async def again(self, asked: Asked, rng: random.Random) -> None:
        """Send the same key and body again; check that it is the same stream."""
        began = asked.accepted_at
        await asyncio.sleep(rng.uniform(0, 4))
        found = await self._post(asked, rng)
        if not found:
            return
        self._tally.doubled += 1
        if found != asked.id and not self._stage.store.may_have_lost(began - POST_SECONDS, monotonic()):
            self._tally.find(f"{asked.name}: its key answered {asked.id} and then {found}; nothing was lost")

    async def cancel(self, asked: Asked, rng: random.Random) -> None:
        """Send DELETE. A 200 is immediate and final, unless the store lost the cancel before the next
        request."""
        began = monotonic()
        try:
            answer = await self._client.delete(f"{self._stage.url(rng)}/stream/{asked.id}")
        except httpx.HTTPError:
            return
        if answer.status_code == 200:
            self._tally.cancels += 1
            status = answer.json()["status"]
            ended = status in ("cancelled", "done", "failed")
            if not ended and not self._stage.store.may_have_lost(began, monotonic()):
                self._tally.find(f"{asked.id}: DELETE answered 200 and status {status}")
        elif answer.status_code not in (404, 503):
            self._tally.find(f"{asked.id}: DELETE answered {answer.status_code} {answer.text[:200]}")

    async def _post(self, asked: Asked, rng: random.Random) -> str:
        headers = {"idempotency-key": asked.key} if asked.key else {}
        try:
            answer = await self._client.post(
                f"{self._stage.url(rng)}/stream", json=asked.body, headers=headers, timeout=POST_SECONDS
            )
        except httpx.HTTPError:
            self._tally.unanswered += 1
            return ""
        if answer.status_code == 202:
            return str(answer.json()["id"])
        self._tally.refused += 1
        if answer.status_code != 503 or "retry-after" not in answer.headers:
            self._tally.find(f"{asked.name}: POST answered {answer.status_code} {answer.text[:200]}")
        return ""
