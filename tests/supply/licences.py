"""docs/licences.md: every installed package and its licence, read from the bills of materials; and its rules.

A licence is an SPDX expression. Where a package does not declare one, `READ` says what its own text is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/licences.md"
# What may be depended on. None is changed here; what is handed on is in web/vendor, its licences beside it.
ALLOWED: Mapping[str, str] = {
    "0BSD": "permissive, nothing to do",
    "AFL-2.1": "permissive; `json-schema` offers BSD-3-Clause beside it",
    "Apache-2.0": "permissive; grants patents; keep the notice",
    "BSD-2-Clause": "permissive; keep the notice",
    "BSD-3-Clause": "permissive; keep the notice",
    "BlueOak-1.0.0": "permissive; keep the notice",
    "CC0-1.0": "public domain, as far as there is one",
    "CNRI-Python": "permissive; Python's own of before 2001, in `regex`",
    "ISC": "permissive; keep the notice",
    "MIT": "permissive; keep the notice",
    "MIT-0": "permissive, nothing to do",
    "MIT-CMU": "permissive; keep the notice",
    "MPL-2.0": "copyleft by file: binds who changes those files, and none is changed here",
    "PSF-2.0": "permissive; Python's own",
    "Python-2.0": "permissive; Python's own",
    "Unlicense": "public domain",
    "Zlib": "permissive; who changes it says so",
}
# Declared as a classifier or in words instead of SPDX, or not at all: what the package's own text says.
READ: Mapping[str, str] = {
    "atheris": "Apache-2.0",
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "isodate": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "lupa": "MIT",
    "protobuf": "BSD-3-Clause",
    "pyasn1-modules": "BSD-2-Clause",
    "redis-entraid": "MIT",
    "tiktoken": "MIT",
    "uri-templates": "Unlicense",
}
_CLASSIFIERS: Mapping[str, str] = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_ROW = re.compile(r"^\| `([^`]+)` \| ([^ |]+) \| ([^|]+) \|$", re.MULTILINE)
_HEAD = """# Licences

Made by `make licences` from the bills of materials of a fresh set-up on Python 3.13, not by hand.
A test holds it against `requirements*.txt`, `constraints*.txt` and npm's lock file, and every licence against
what is allowed:

"""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """An installed package; the licence is an SPDX expression, or empty when nobody knows."""

    name: str
    version: str
    licence: str


def normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages_of(bom: Path) -> list[Package]:
    """The packages of a CycloneDX document, sorted, each version once."""
    components = json.loads(bom.read_text())["components"]
    return sorted({_package(component) for component in components})


def _package(component: Mapping[str, Any]) -> Package:
    name = component["name"]
    if component["purl"].startswith("pkg:pypi/"):
        name = normal(name)
    given = component.get("licenses", ())
    spdx = [item.get("expression") or item["license"].get("id") for item in given]
    read = [_CLASSIFIERS.get(item.get("license", {}).get("name", "")) for item in given]
    declared = [licence for licence in (spdx if any(spdx) else read) if licence]
    return Package(name, component["version"], READ.get(name) or " AND ".join(dict.fromkeys(declared)))


def outside(packages: Iterable[Package]) -> list[Package]:
    """Those whose licence is unknown, or names anything that is not allowed."""
    return [package for package in packages if not _allowed(package.licence)]


def _allowed(expression: str) -> bool:
    names = re.findall(r"[^\s()]+", expression)
    return bool(names) and all(name in ALLOWED for name in names if name not in ("AND", "OR"))


def write(boms: Mapping[str, Path]) -> list[Package]:
    """Write the document, a table for each bill; the packages outside the list."""
    text = _HEAD + "| licence | why |\n|---|---|\n"
    text += "".join(f"| {name} | {why} |\n" for name, why in ALLOWED.items())
    strange = []
    for title, bom in boms.items():
        found = packages_of(bom)
        strange += outside(found)
        text += f"\n## {title}\n\n| package | version | licence |\n|---|---|---|\n"
        text += "".join(f"| `{p.name}` | {p.version} | {p.licence or 'unknown'} |\n" for p in found)
    DOCUMENT.write_text(text)
    return strange


def listed() -> list[Package]:
    """The packages that the document names."""
    return [Package(*(cell.strip() for cell in row)) for row in _ROW.findall(DOCUMENT.read_text())]
