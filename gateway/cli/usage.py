"""`python -m gateway usage`: print the tokens that each owner's streams have used, one owner per line."""

from __future__ import annotations

import asyncio
import json
import sys

from gateway.cli.commands import table
from gateway.cli.parser import MOST_LISTED
from gateway.observe.loglines import one_line
from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import HoldfastError
from gateway.store.usage import Usage
from gateway.streams.service import Gateway

_AT_ONCE = 100
_COLUMNS = ("owner", "input", "output", "total", "limit", "minute", "limit")


async def usage(gateway: Gateway, *, as_json: bool) -> int:
    """Print the tokens. Return the exit code: 1 when the store cannot be reached."""
    kept = Usage(gateway.parts.redis)
    try:
        owners = await kept.owners(MOST_LISTED)
        documents = []
        for first in range(0, len(owners), _AT_ONCE):
            some = owners[first : first + _AT_ONCE]
            for owner, used in zip(some, await asyncio.gather(*map(kept.of, some)), strict=True):
                documents.append(
                    {"owner": owner} | used.document(None if owner == ANONYMOUS else gateway.plans.of(owner))
                )
    except HoldfastError as error:
        print(one_line(error.detail), file=sys.stderr)
        return 1
    finally:
        await gateway.close()
    if as_json:
        print(json.dumps({"owners": documents}, indent=2))
        return 0
    rows = []
    for one in documents:
        day, minute = one["day"], one["minute"]
        numbers = [day["input_tokens"], day["output_tokens"], day["total_tokens"], day["limit"]]
        numbers += [minute["total_tokens"], minute["limit"]]
        rows.append([one_line(one["owner"]), *("-" if each is None else str(each) for each in numbers)])
    print(table(_COLUMNS, rows))
    return 0
