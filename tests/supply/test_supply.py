"""Every dependency is listed, its licence is allowed, and an explanation excuses only its own finding."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.supply import audit, licences
from tests.supply.audit import findings
from tests.supply.licences import ALLOWED, READ, ROOT, Package

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)(.*)$", re.MULTILINE)
NODE = json.loads((ROOT / "tests/node/package-lock.json").read_text())["packages"]


def pinned() -> dict[str, set[str]]:
    """Every pinned name, direct or not, and the versions that one Python or another gets."""
    found: dict[str, set[str]] = {}
    for path in (*ROOT.glob("requirements*.txt"), *ROOT.glob("constraints*.txt")):
        for name, version, _ in PINNED.findall(path.read_text()):
            found.setdefault(licences.normal(name), set()).add(version)
    return found


def test_every_pinned_requirement_is_listed_in_its_version() -> None:
    listed: dict[str, set[str]] = {}
    for package in licences.listed():
        listed.setdefault(package.name, set()).add(package.version)
    wanted = pinned()
    assert len(wanted) > 90
    for name, versions in wanted.items():
        assert listed.get(name, set()) & versions, (
            f"{name} {versions} is not in docs/licences.md: make licences"
        )


def test_every_package_of_node_is_listed() -> None:
    listed = {(package.name, package.version) for package in licences.listed()}
    found = [(path.rpartition("node_modules/")[2], item) for path, item in NODE.items() if path]
    assert len(found) > 100
    # An alias in package.json (`ai7`: `npm:ai@…`) is listed by its own name, or by the package's.
    names = [((alias, item["version"]), (item.get("name", alias), item["version"])) for alias, item in found]
    assert [alias for alias, real in names if alias not in listed and real not in listed] == []


def test_every_licence_is_allowed_and_nothing_is_allowed_for_nothing() -> None:
    packages = licences.listed()
    assert licences.outside(packages) == []
    used = {name for package in packages for name in re.findall(r"[^\s()]+", package.licence)}
    assert set(ALLOWED) == used - {"AND", "OR"}
    assert set(READ) <= {package.name for package in packages}
    assert all(f"| {name} | {why} |" in licences.DOCUMENT.read_text() for name, why in ALLOWED.items())


@pytest.mark.parametrize(
    ("declared", "licence", "allowed"),
    [
        ([{"license": {"id": "MIT"}}], "MIT", True),
        ([{"expression": "MPL-2.0 AND (Apache-2.0 OR MIT)"}], "MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ([{"license": {"name": "License :: OSI Approved :: MIT License"}}], "MIT", True),
        ([{"license": {"id": "MIT"}}, {"license": {"name": "License :: DFSG approved"}}], "MIT", True),
        ([{"license": {"id": "GPL-3.0-only"}}], "GPL-3.0-only", False),
        ([{"expression": "MIT AND AGPL-3.0-only"}], "MIT AND AGPL-3.0-only", False),
        ([{"license": {"name": "see the file"}}], "", False),
        ([], "", False),
    ],
)
def test_a_bill_is_read(tmp_path: Path, declared: list[Any], licence: str, allowed: bool) -> None:
    bom = tmp_path / "bom.json"
    component = {"name": "Some_Thing", "version": "1", "purl": "pkg:pypi/x@1", "licenses": declared}
    bom.write_text(json.dumps({"components": [component, component]}))
    found = licences.packages_of(bom)
    assert found == [Package("some-thing", "1", licence)]
    assert licences.outside(found) == ([] if allowed else found)


def test_an_advisory_of_npm_is_known_by_its_id() -> None:
    via = {
        "name": "thing",
        "range": "<2",
        "severity": "high",
        "title": "It breaks",
        "url": "https://github.com/advisories/GHSA-aaaa-bbbb-cccc",
    }
    answer = {"vulnerabilities": {"thing": {"via": [via]}, "other": {"via": ["thing"]}}}
    assert findings(answer) == {"GHSA-aaaa-bbbb-cccc": "thing <2, high: It breaks"}


def test_only_a_row_of_its_own_explains_a_finding() -> None:
    text = "| `GHSA-aaaa-bbbb-cccc` | thing |\nGHSA-dddd-bbbb-cccc\n| thing | `PYSEC-1` |\n| `PYSEC-2` |"
    assert audit.EXPLAINED.findall(text) == ["GHSA-aaaa-bbbb-cccc", "PYSEC-2"]
    assert all(re.fullmatch(r"(GHSA|PYSEC|CVE)-[\w-]+", finding) for finding in audit.explained())
