"""Read the settings of an app's `host.json` that the gateway must follow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "host.json"
DEFAULT_PREFIX = "api"  # the default of the Azure Functions host
# encodings of queue messages; the host decodes base64, and the gateway reads both
ENCODINGS = ("base64", "none")


@dataclass(frozen=True, slots=True)
class HostFile:
    """The `host.json` of an app.

    `folder` contains the file. `prefix` comes before every route; it has no slashes at its ends.
    """

    folder: Path
    prefix: str = DEFAULT_PREFIX

    @classmethod
    def found(cls, folders: Iterable[Path]) -> HostFile:
        """Find the first file in these folders or above them. Raises ValueError that tells the reason."""
        looked = [folder for start in folders for folder in (start, *start.parents)]
        folder = next((folder for folder in looked if (folder / FILE).is_file()), None)
        if folder is None:
            raise ValueError(
                f"there is no {FILE} in {looked[0]} or above it: it stands beside function_app.py"
            )
        try:
            told = json.loads((folder / FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / FILE} cannot be read: {error}") from None
        http, queues = (_section(told, "extensions", name) for name in ("http", "queues"))
        encoding = queues.get("messageEncoding", "base64")
        if encoding not in ENCODINGS:
            raise ValueError(f"messageEncoding in {folder / FILE} must be one of {', '.join(ENCODINGS)}")
        prefix = http.get("routePrefix", DEFAULT_PREFIX)
        if not isinstance(prefix, str) or "{" in prefix:
            raise ValueError(f"routePrefix in {folder / FILE} must be a path without parameters")
        return cls(folder, prefix.strip("/"))


def _section(value: Any, *names: str) -> Mapping[str, Any]:
    for name in names:
        value = value.get(name, {}) if isinstance(value, dict) else {}
    return value if isinstance(value, dict) else {}
