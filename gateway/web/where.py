"""Below which path this gateway is asked: the one rule for `Location`, `stream`, token URLs and `servers`.

Mounted in another ASGI application, or behind a server's `--root-path`, it is ASGI's `root_path`. Azure
Functions hands on whole paths and says nothing of its prefix, so that host sets it (`below`).
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.types import Scope

_BASE = "holdfast.base"  # in a request's scope
_IN_A_PATH = "/~!$&'()*+,;=:@"  # what may stand there as it is (RFC 3986, 3.3)


def base(request: Request) -> str:
    """The path's beginning, percent-encoded: `/api/ai`, or the empty string at the root.

    It has one slash in front: two would begin another host's name (RFC 3986, 4.2).
    """
    given: str = request.scope.get(_BASE, request.scope.get("root_path", ""))
    path = given.strip("/")
    return f"/{quote(path, safe=_IN_A_PATH)}" if path else ""


def below(scope: Scope, path: str) -> None:
    """Say that this request was routed below a path, by a host that has no `root_path`."""
    scope[_BASE] = path


def route_path(scope: Scope) -> str:
    """The path that our own routes match: below `root_path`, as Starlette's router takes it."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
