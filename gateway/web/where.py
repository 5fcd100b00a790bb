"""The base path of this gateway, for `Location`, `stream`, token URLs and `servers`.

If the gateway is mounted in another ASGI application, or runs behind a server's `--root-path`, the base path
is ASGI's `root_path`. Azure Functions passes whole paths and does not name its prefix, so that host sets the
base path itself (`below`).
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.types import Scope

_BASE = "holdfast.base"  # key in the scope of a request
# Characters that a path may contain without percent-encoding (RFC 3986, 3.3).
_IN_A_PATH = "/~!$&'()*+,;=:@"


def base(request: Request) -> str:
    """Return the base path, percent-encoded: `/api/ai`, or the empty string at the root.

    It begins with exactly one slash: two slashes would begin the name of another host (RFC 3986, 4.2).
    """
    given: str = request.scope.get(_BASE, request.scope.get("root_path", ""))
    path = given.strip("/")
    return f"/{quote(path, safe=_IN_A_PATH)}" if path else ""


def below(scope: Scope, path: str) -> None:
    """Set the base path of this request, for a host that has no `root_path`."""
    scope[_BASE] = path


def route_path(scope: Scope) -> str:
    """Return the path that our own routes match: below `root_path`, as Starlette's router computes it."""
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
