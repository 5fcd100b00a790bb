"""`make audit`: what is known against any installed package, by pip-audit and npm audit.

A finding ends the run with 1 unless docs/supply.md explains it, and so does a service that cannot be asked:
nothing known is not the same as nobody asked.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.supply.boms import NODE, ROOT, TOOLS

EXPLAINED = re.compile(r"^\| `((?:GHSA|PYSEC|CVE)-[A-Za-z0-9-]+)` \|", re.MULTILINE)


def explained() -> list[str]:
    """The findings that docs/supply.md explains."""
    return EXPLAINED.findall((ROOT / "docs/supply.md").read_text())


def audit() -> int:
    """0 when both are clean but for what is explained."""
    known = explained()
    return max(_python(known), _node(known))


def _python(known: list[str]) -> int:
    """pip-audit over the installed packages themselves; --strict fails for one that it could not look up."""
    command = [str(TOOLS / "bin/pip-audit"), "--strict", "--progress-spinner", "off"]
    for venv in (ROOT / ".venv", TOOLS):
        command += [f"--path={place}" for place in venv.glob("lib/python*/site-packages")]
    for finding in known:
        command += ["--ignore-vuln", finding]
    return subprocess.run(command, check=False).returncode


def _node(known: list[str]) -> int:
    """Npm audit of the lock file; npm itself has no list of explained findings."""
    command = ["npm", "audit", "--package-lock-only", "--json"]
    done = subprocess.run(command, cwd=NODE, stdout=subprocess.PIPE, check=False)
    answer: dict[str, Any] = json.loads(done.stdout or b"{}")
    if "vulnerabilities" not in answer:
        print(f"npm audit could not be asked: {answer.get('message', 'no answer')}")
        return 1
    found = findings(answer)
    for finding, what in sorted(found.items()):
        print(f"{finding}: {what}{' (explained)' if finding in known else ''}")
    return int(bool(found.keys() - known))


def findings(answer: dict[str, Any]) -> dict[str, str]:
    """Advisories by id, from npm's second audit report format."""
    found = {}
    for vulnerability in answer["vulnerabilities"].values():
        for via in vulnerability["via"]:
            if isinstance(via, dict):  # else the name of another entry, which has the advisory
                found[Path(via["url"]).name] = (
                    f"{via['name']} {via['range']}, {via['severity']}: {via['title']}"
                )
    return found
