"""All settings of the product, which cannot be changed after the start.

Only this module reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gateway.settings.declared import Fields
from gateway.settings.rules import check

_PREFIX = "GATEWAY_"
NEAR = 0.7  # the lowest ratio of difflib at which a name counts as similar
MOST_TOLD = 10  # most unknown variables that are reported
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")


@dataclass(frozen=True, slots=True, repr=False)
class Settings(Fields):
    """The settings of an operator, checked against every rule. Durations are in seconds, sizes in bytes.

    Raises ValueError, which names the variable and the rule, never the value.
    """

    def __post_init__(self) -> None:
        check(self)

    def __repr__(self) -> str:
        """Return the settings without secrets. A URL is shown without its user, password and query."""
        shown = (f"{item.name}={_shown(getattr(self, item.name))!r}" for item in fields(self) if item.repr)
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **presumed: Any) -> Settings:
        """Read the environment. `presumed` has this host's own defaults of fields.

        Raises ValueError, which names the variable and the rule, never the value.
        """
        source = os.environ if environ is None else environ
        values: dict[str, Any] = dict(presumed)
        for item in fields(cls):
            raw = source.get(item.metadata["env"], "").strip()
            if raw:
                values[item.name] = _convert(item.metadata["env"], raw, item.default)
        # `owner` may be set only by code, because it needs a function.
        if values.get("auth") == "owner" and "auth" not in presumed:
            raise ValueError("GATEWAY_AUTH must be none, keys, easyauth or jwt")
        return cls(**values)


def misspelt(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence for each unknown variable that begins like a setting, with the nearest name."""
    source = os.environ if environ is None else environ
    known = {item.metadata["env"].removeprefix(_PREFIX) for item in fields(Settings)}
    told = []
    for name in sorted(source):
        own = name.removeprefix(_PREFIX)
        if own != name and own not in known:
            near = get_close_matches(own, known, 1, NEAR)
            meant = f": is {_PREFIX}{near[0]} meant?" if near else ", and is not read"
            told.append(f"{name} is no setting{meant}")
    return told[:MOST_TOLD]


def read_env_file(path: Path) -> None:
    """Read a file of `NAME=value` lines into the environment. A variable that is already set is not changed.

    Comments begin with `#`. A line may begin with `export`. One pair of quotes around a value is removed. A
    missing file is no error. Raises ValueError, which names the line, never the value.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path.name} cannot be read: {type(error).__name__}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _ASSIGNMENT.fullmatch(line.strip())
        if found is None or "\0" in line:
            raise ValueError(f"{path.name}, line {number}: not NAME=value")
        name, value = found[1], found[2].strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        os.environ.setdefault(name, value)


def _shown(value: Any) -> Any:
    if not isinstance(value, str) or "://" not in value:
        return value
    scheme, _, rest = value.partition("://")
    _, user, place = rest.rpartition("@")
    place, _, query = place.partition("?")
    return f"{scheme}://{'***@' if user else ''}{place}{'?***' if query else ''}"


def _convert(name: str, raw: str, default: Any) -> Any:
    if default is MISSING or isinstance(default, str):
        return raw
    try:
        value = type(default)(raw)
    except ValueError:
        raise ValueError(f"{name} must be a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{name} must be a finite number")
    return value
