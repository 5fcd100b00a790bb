"""`python -m gateway webhooks [list|redrive [ID]]`: list the undelivered webhooks, or send them again."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gateway import protocol
from gateway.cli.commands import table
from gateway.observe.loglines import one_line
from gateway.protocol.errors import HoldfastError
from gateway.store.outbox import Outbox, Outgoing
from gateway.streams.service import Gateway
from gateway.webhooks.asked import EVENTS
from gateway.webhooks.urls import host_of

MOST_OF_A_BUCKET = 100  # most webhooks of each kind per bucket: 51,200 in all
_COLUMNS = ("webhook", "state", "tries", "outcome", "due_at", "host", "owner")


async def webhooks(gateway: Gateway, given: argparse.Namespace) -> int:
    """Run the command. Return the exit code: 1 when there is no such webhook, or no store."""
    try:
        outbox = gateway.parts.outbox
        if given.action == "redrive":
            return await _redriven(outbox, given.id)
        return _told(await outbox.listed(MOST_OF_A_BUCKET), as_json=given.json)
    except HoldfastError as error:
        print(error.detail, file=sys.stderr)
        return 1
    finally:
        await gateway.close()


async def _redriven(outbox: Outbox, wanted: str) -> int:
    """Send webhooks again: one by its id, those of a stream by the stream's id, or all that were given up."""
    name = wanted.removeprefix("msg_")
    if not wanted:
        names = [entry.name for entry in await outbox.listed(MOST_OF_A_BUCKET) if entry.dead]
    elif protocol.is_stream_id(name):
        names = [f"{name}_{event}" for event in EVENTS]
    elif protocol.is_stream_id(name.rpartition("_")[0]) and name.rpartition("_")[2] in EVENTS:
        names = [name]
    else:
        names = []
    redriven = [one for one in names if await outbox.redrive(one)]
    for one in redriven:
        print(f"msg_{one} is sent again")
    if wanted and not redriven:
        print("there is no such webhook", file=sys.stderr)
        return 1
    if not wanted:
        print(f"{len(redriven)} are sent again")
    return 0


def _told(found: list[Outgoing], *, as_json: bool) -> int:
    rows = [_row(entry) for entry in sorted(found, key=lambda entry: (entry.due_ms, entry.name))]
    if as_json:
        print(json.dumps({"webhooks": rows}, indent=2))
    else:
        print(table(_COLUMNS, [[one_line(str(row[name] or "-")) for name in _COLUMNS] for row in rows]))
    return 0


def _row(entry: Outgoing) -> dict[str, Any]:
    """Return a webhook as a row. Only the host of its URL is shown, because the rest may contain a secret."""
    state = "dead" if entry.dead else ("sending" if entry.held else "waiting")
    return {
        "webhook": entry.webhook_id,
        "stream": entry.stream_id,
        "event": entry.event,
        "state": state,
        "tries": str(entry.tries),
        "outcome": entry.outcome,
        "due_at": None if entry.dead else protocol.iso(entry.due_ms),
        "host": host_of(entry.url),
        "owner": entry.owner,
    }
