"""Find the function that answers a request, by the host's route templates.

Supported are literals, `{name}`, a last `{name?}` and a last `{*name}`, with the prefix of host.json in
front. Constraints and defaults are refused, not ignored.

Invariant: at most one function answers. The host in Azure takes the first that matches, in an order that it
does not promise, so two that match the same request are an error here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from .bindings import BindingError, Function, HttpTrigger

DEFAULT_PREFIX = "api"
_PARAMETER = re.compile(r"\{(\*?)([A-Za-z_]\w*)(\??)\}")


class AmbiguousRouteError(LookupError):
    """Two functions match one request."""


@dataclass(frozen=True, slots=True)
class Match:
    function: Function
    trigger: HttpTrigger
    params: Mapping[str, str]


class Router:
    def __init__(self, functions: Iterable[Function], prefix: str) -> None:
        self._routes = [
            (compile_template(f"{prefix}/{function.trigger.route}"), function, function.trigger)
            for function in functions
            if isinstance(function.trigger, HttpTrigger)
        ]

    def match(self, method: str, raw_path: str) -> Match | None:
        """Return the one function for the request, or None if there is none (404, which the host also answers
        to a wrong method). Raises AmbiguousRouteError."""
        matches = [
            Match(function, trigger, {key: _decode(text) for key, text in found.items() if text})
            for pattern, function, trigger in self._routes
            if (not trigger.methods or method in trigger.methods)
            and (found := _parameters(pattern, raw_path)) is not None
        ]
        if len(matches) > 1:
            raise AmbiguousRouteError(", ".join(match.function.name for match in matches))
        return matches[0] if matches else None


def compile_template(template: str) -> re.Pattern[str]:
    """Return a pattern for raw (still encoded) paths; literals match in upper and lower case."""
    segments = [segment for segment in template.split("/") if segment]
    body = "".join(
        _segment(segment, is_last=index == len(segments)) for index, segment in enumerate(segments, start=1)
    )
    return re.compile(f"{body}/?", re.IGNORECASE)


def _segment(segment: str, *, is_last: bool) -> str:
    if "{" not in segment:
        return "/" + re.escape(segment)
    found = _PARAMETER.fullmatch(segment)
    if found is None or (not is_last and (found[1] or found[3])):
        raise BindingError(f"this host does not know the route segment {segment}")
    if found[1]:
        return f"(?:/(?P<{found[2]}>.*?))?"
    return f"(?:/(?P<{found[2]}>[^/]+)){found[3]}"


def _parameters(pattern: re.Pattern[str], raw_path: str) -> dict[str, str | None] | None:
    found = pattern.fullmatch(raw_path)
    return None if found is None else found.groupdict()


def _decode(raw: str) -> str:
    # ASP.NET decodes a path except for its encoded slashes.
    return unquote(re.sub("%2f", "%252F", raw, flags=re.IGNORECASE))


def read_prefix(app_dir: Path) -> str:
    """Return extensions.http.routePrefix of host.json, or "api" if it is not set."""
    host_json = app_dir / "host.json"
    if not host_json.exists():
        return DEFAULT_PREFIX
    http = json.loads(host_json.read_text("utf-8")).get("extensions", {}).get("http", {})
    return str(http.get("routePrefix", DEFAULT_PREFIX))
