"""The list of the caller's own streams, one row for each stream, newest first.

A page takes bounded work, however many streams its filter skips. So a page may be short or empty, and still
have a `next`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway import protocol
from gateway.protocol import sse
from gateway.protocol.errors import Invalid
from gateway.store.newest import Entry
from gateway.store.record import WAITING, Look, Record
from gateway.store.row import row
from gateway.streams.service import Gateway

ROWS, MOST_ROWS = 50, 100  # rows of one page: default and limit
MOST_LOOKS = 500  # streams that are read for one page
_AT_ONCE = 100
STATES = (*(str(status.value) for status in protocol.Status), WAITING)
# After this time in ms, an id without a record belongs to a stream that was never created.
_MAKING_MS = 120_000
_NEXT = re.compile(r"(?P<at>[0-9]{1,15})-(?P<id>[A-Za-z0-9_-]{24})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which streams are wanted. A row must match all fields. An empty field matches any stream."""

    limit: int = ROWS
    before: Entry | None = None
    states: frozenset[str] = frozenset()
    chain: str = ""
    thread: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def fits(self, record: Record) -> bool:
        """Whether the stream matches the filter."""
        told = record.metadata or {}
        return (
            (not self.states or record.state in self.states)
            and (not self.chain or record.chain == self.chain)
            and (not self.thread or record.thread == self.thread)
            and all(name in told and _text(told[name]) == value for name, value in self.metadata.items())
        )


def filter_of(given: list[tuple[str, str]], metadata_keys: frozenset[str]) -> Filter:
    """Return the filter that a query string describes. Raises Invalid, which names the parameter."""
    query: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name, value in given:
        if name.startswith("metadata."):
            if name.removeprefix("metadata.") not in metadata_keys:
                raise Invalid(name, "is not one of the keys that may be asked for (GATEWAY_LIST_METADATA)")
            metadata[name.removeprefix("metadata.")] = value
        elif name in query:
            raise Invalid(name, "must be given once")
        else:
            query[name] = value
    limit = query.get("limit", str(ROWS))
    if not re.fullmatch(r"[0-9]{1,3}", limit, re.ASCII) or not 1 <= int(limit) <= MOST_ROWS:
        raise Invalid("limit", f"must be a whole number from 1 to {MOST_ROWS}")
    before = _NEXT.fullmatch(query["before"]) if "before" in query else None
    if "before" in query and before is None:
        raise Invalid("before", "must be the `next` of a page before")
    states = frozenset(query["status"].split(",")) if "status" in query else frozenset()
    if not states <= set(STATES):
        raise Invalid("status", f"must be some of {', '.join(STATES)}, by comma")
    return Filter(
        int(limit),
        (int(before["at"]), before["id"]) if before else None,
        states,
        query.get("chain", ""),
        query.get("thread", ""),
        metadata,
    )


async def page(gateway: Gateway, owner: str, asked: Filter) -> dict[str, Any]:
    """Return one page: `streams`, and `next`.

    `next` is the cursor after which more rows may come, or None if there are no more rows.

    Raises StoreUnavailable.
    """
    mine = gateway.parts.mine
    rows: list[dict[str, Any]] = []
    gone: list[str] = []
    before, looked, is_more = asked.before, 0, True
    while is_more and len(rows) < asked.limit and looked < MOST_LOOKS:
        most = min(_AT_ONCE, MOST_LOOKS - looked)
        if not (asked.states or asked.chain or asked.thread or asked.metadata):
            most = min(most, asked.limit - len(rows) + 1)
        entries = await mine.page(owner, before, most)
        looks = await asyncio.gather(*(gateway.parts.log.look(one, owner) for _, one in entries))
        is_more = len(entries) == most
        for entry, look in zip(entries, looks, strict=True):
            if len(rows) == asked.limit:
                is_more = True
                break
            before, looked = entry, looked + 1
            if look.record is None and entry[0] < look.now_ms - _MAKING_MS:
                gone.append(entry[1])
            elif (record := _listed(look)) is not None and asked.fits(record):
                rows.append(row(record))
    await mine.forget(owner, gone)
    return {"streams": rows, "next": f"{before[0]}-{before[1]}" if is_more and before else None}


def _listed(look: Look) -> Record | None:
    """Return the stream, if it was really created and is within its retention."""
    record = look.record
    return record if record is not None and look.log_end and (record.confirmed or record.ended) else None


def _text(value: Any) -> str:
    """Return a value of the metadata as a query string writes it: a text unchanged, other values as JSON."""
    return value if isinstance(value, str) else sse.dumps(value).decode()
