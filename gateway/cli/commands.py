"""The commands of `python -m gateway …` that read the store or call a gateway, and then end.

`inspect` and `ls` only read the store at REDIS_URL and change nothing. They print no content of streams
unless asked to.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway import protocol
from gateway.azure import credentials
from gateway.callers.auth import new_key
from gateway.cli.parser import LOOKING, MOST_LISTED
from gateway.cli.parser import parser as parser
from gateway.cli.store import folder_of
from gateway.observe.loglines import one_line
from gateway.ops.listing import Listing, listing
from gateway.ops.timeline import Entry, Story, story_of
from gateway.protocol.errors import HoldfastError, StoreUnavailable, StreamNotFound
from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.streams.retrying import Wanted
from gateway.streams.service import Gateway

_COLUMNS = (
    "id",
    "status",
    "owner",
    "chain",
    "attempt",
    "failures",
    "created_at",
    "ended_at",
    "log_bytes",
    "code",
)


def settings_for(parser: argparse.ArgumentParser, command: str) -> Settings:
    """Return the settings. If they do not fit the command, end the process with one sentence."""
    try:
        settings = Settings.from_env()
        if command == "all" and not settings.model_is_configured:
            settings = Settings.from_env(default_chain="demo")
    except ValueError as error:
        parser.error(str(error))
    told_twice = settings.auth == "none" and settings.open_to_all == "yes"
    if command in ("all", "web") and settings.is_open and not settings.is_loopback and not told_twice:
        parser.error(
            f"HOST={settings.host} can be reached by others: set GATEWAY_AUTH, or, for everybody to be let "
            "in, both GATEWAY_AUTH=none and GATEWAY_OPEN_TO_ALL=yes"
        )
    shown = settings.metrics and not settings.metrics_key
    if command == "worker" and settings.worker_port and shown and not settings.is_loopback and not told_twice:
        parser.error(f"HOST={settings.host} can be reached by others: set GATEWAY_METRICS_KEY")
    if command in ("web", "worker") and not (settings.redis_url or settings.store_dir):
        parser.error("REDIS_URL must be set: web and worker meet in a Redis that both reach")
    if command in LOOKING and not settings.redis_url and not folder_of(settings).is_dir():
        parser.error("REDIS_URL must be set: it names the store to look into")
    if command == "all" and settings.is_open and settings.is_loopback and not settings.development:
        return replace(settings, development="yes")
    return settings


def make_key(name: str, *, as_json: bool = False) -> str:
    """Return a new API key, and its line for the file of keys. Raises ValueError for an invalid name."""
    key, line = new_key(name)
    if as_json:
        return json.dumps({"key": key, "line": line})
    return f"key, for its owner alone: {key}\nline for GATEWAY_KEYS_FILE: {line}"


async def ask(settings: Settings, given: argparse.Namespace) -> int:
    """Run a command that calls a gateway. Return the exit code: 2 when the command line was wrong."""
    from gateway import client
    from gateway.cli import ask as asking

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = given.url or settings.url or f"http://{host}:{settings.port}"
    try:
        gateway = client.Gateway(url, key=given.key or settings.key)
    except ValueError as error:
        print(f"{'--url' if given.url else 'GATEWAY_URL'}: {error}", file=sys.stderr)
        return 2
    async with gateway:
        match given.command:
            case "ask":
                try:
                    question, params = asking.asked(given.question, given.params)
                except ValueError as error:
                    print(error, file=sys.stderr)
                    return 2
                chain = given.chain or None
                stream = gateway.stream(user=question, chain=chain, params=params)
                return await asking.show(stream, url, given.chain, as_json=given.json, cancels=True)
            case "follow":
                stream = gateway.follow(given.id, given.after)
                return await asking.show(stream, url, given.id, as_json=given.json, cancels=False)
            case "cancel":
                return await asking.cancel(gateway, given.id, as_json=given.json)
            case _:
                return await asking.chains(gateway, as_json=given.json)


async def look(settings: Settings, given: argparse.Namespace) -> int:
    """Run `inspect` or `ls`. Return the exit code: 1 when the stream or the store is not there."""
    tokens = credentials.redis_tokens(settings)
    redis = Router(Place(settings.redis_url, tokens), name="holdfast-look")
    log = Log(redis)
    try:
        if given.command == "inspect":
            known = protocol.is_stream_id(given.id)
            return _inspected(await story_of(log, given.id, content=given.content) if known else None, given)
        limit = max(1, min(given.limit, MOST_LISTED))
        found = await listing(redis, log, owner=given.owner, status=given.status, limit=limit)
        return _listed(found, as_json=given.json)
    except StoreUnavailable:
        print("the store is out of reach", file=sys.stderr)
        return 1
    finally:
        await redis.close()
        if tokens is not None:
            await tokens.close()
        await credentials.close()


async def retry(gateway: Gateway, given: argparse.Namespace) -> int:
    """Run `retry` with a gateway without an HTTP server.

    Return the exit code: 1 when no stream was started.
    """
    try:
        known = protocol.is_stream_id(given.id)
        record, _ = await gateway.parts.log.record(given.id) if known else (None, 0)
        if record is None:
            raise StreamNotFound
        wanted = Wanted(given.start)
        made = await gateway.retry(record.id, wanted, owner=record.owner, claims=record.claims)
        print(made.id)
        return 0
    except HoldfastError as error:
        print(one_line(error.detail), file=sys.stderr)
        return 1
    finally:
        await gateway.close()


def _inspected(story: Story | None, given: argparse.Namespace) -> int:
    if story is None:
        print("there is no such stream", file=sys.stderr)
        return 1
    state = story.state(content=given.content)
    if given.json:
        timeline = [entry.document() for entry in story.entries]
        print(json.dumps({**state, "timeline": timeline}, indent=2))
        return 0
    width = max(map(len, state))
    for name, value in state.items():
        print(f"{name:{width}}  {_cell(value)}")
    if not story.log_bytes:
        print("\nIts log is gone: it is past its retention.")
        return 0
    rows = [_row(entry) for entry in story.entries]
    print("\n" + table(("id", "type", "events", "bytes", "writer", ""), rows))
    return 0


def _row(entry: Entry) -> list[str]:
    told = " ".join(f"{name}={_cell(value)}" for name, value in entry.told.items())
    said = "" if entry.content is None else f" content={_cell(entry.content)}"
    return [entry.id, entry.type, str(entry.events), str(entry.bytes), entry.writer, told + said]


def _listed(found: Listing, *, as_json: bool) -> int:
    rows = [{**_columns(row.record), "log_bytes": row.log_bytes} for row in found.rows]
    if as_json:
        print(json.dumps({"streams": rows, "complete": found.complete}, indent=2))
        return 0
    print(table(_COLUMNS, [[_cell(row[name]) for name in _COLUMNS] for row in rows]))
    if not found.complete:
        print("There may be more: raise --limit, or narrow with --owner and --status.")
    return 0


def _columns(record: Any) -> Mapping[str, Any]:
    return {
        "id": record.id,
        "status": record.state,
        "owner": record.owner,
        "chain": record.chain,
        "attempt": record.attempt,
        "failures": record.failures,
        "created_at": protocol.iso(record.created_ms),
        "ended_at": record.ended_ms and protocol.iso(record.ended_ms),
        "code": (record.error or {}).get("code"),
    }


def _cell(value: Any) -> str:
    """Return any value as one line of text."""
    if value is None or value == "":
        return "-"
    return one_line(value if isinstance(value, str) else json.dumps(value))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. Columns are as wide as necessary; the last column is not padded."""
    whole = [head, *rows]
    widths = [max(len(row[column]) for row in whole) for column in range(len(head) - 1)]
    lines = ("  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in whole)
    return "\n".join(lines)
