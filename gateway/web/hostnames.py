"""Check of the header Host: whether a request is for this gateway. It protects from DNS rebinding.

A hostile page may map its own host name to the address 127.0.0.1. The browser then treats a gateway on this
machine as that page's own server. If callers are not authenticated, only the name in Host shows the
difference: the browser sends the page's name, and no script can change the header.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from gateway.protocol.errors import Malformed, Misdirected
from gateway.settings import Settings

# RFC 9112, 3.2 and RFC 3986, 3.2.2. An empty name is refused, because our clients never send one.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(:[0-9]*)?")
# RFC 6761, 6.3: browsers resolve each name below `localhost` to loopback themselves.
_LOOPBACK = re.compile(r"(.+\.)?localhost|127(\.[0-9]{1,3}){3}|\[::1\]")


def names_of(settings: Settings) -> frozenset[str] | None:
    """Return the names that are allowed in addition to those of loopback.

    None: every name is allowed, because something else decides who may send requests.
    """
    if not settings.is_open or not (settings.is_loopback or settings.hosts):
        return None
    return frozenset(settings.hosts.split())


def check(headers: Headers, version: str, names: frozenset[str] | None) -> None:
    """Raise Malformed for a Host that HTTP does not allow, and Misdirected for a name that is not ours.

    HTTP/1.1 requires exactly one Host (RFC 9112, 3.2). `names` is the result of `names_of`.
    """
    given = headers.getlist("host")
    if not given and names is None and version != "1.1":
        return
    found = _HOST.fullmatch(given[0].strip(" \t")) if len(given) == 1 else None
    if found is None:
        raise Malformed("Host must be given once, as a name and perhaps a port")
    if names is None:
        return
    name = found[1].lower().removesuffix(".")
    if name not in names and not _LOOPBACK.fullmatch(name):
        raise Misdirected
