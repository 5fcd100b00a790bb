"""Lua scripts. Redis runs each script completely, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from gateway.redis.commands import Commands

_LUA = Path(__file__).parents[1] / "lua"


class Script:
    """One Lua script. It is sent by its hash, or as text if the server does not know the hash.

    `shared`: the script's text begins with `common.lua`, as in all scripts of a stream, or with the file that
    `beginning` names.
    """

    def __init__(self, name: str, *, shared: bool = True, beginning: str = "common") -> None:
        before = (_LUA / f"{beginning}.lua").read_text() if shared else ""
        self.source = before + (_LUA / f"{name}.lua").read_text()
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Commands, keys: list[str], *args: Any) -> list[Any]:
        """Run the script, and return its answer: a list whose first item is a word."""
        try:
            answer = await redis.call("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            answer = await redis.call("EVAL", self.source, len(keys), *keys, *args)
        return [answer[0].decode(), *answer[1:]]
