"""Bills of materials in CycloneDX: build/sbom-*.json, by cyclonedx-bom and by npm itself."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
TOOLS = BUILD / "tools"  # a venv of its own, which `scripts/setup tools` makes
NODE = ROOT / "tests/node"
BOMS: Mapping[str, Path] = {
    "Python: run time and tests": BUILD / "sbom-python.json",
    "Python: tools of `make audit`, `make sbom` and `make fuzz`": BUILD / "sbom-tools.json",
    "Node: tests": BUILD / "sbom-node.json",
}


def write() -> None:
    """All of them. Raises CalledProcessError when a tool fails."""
    python, tools, node = BOMS.values()
    for environment, bom in ((ROOT / ".venv/bin/python", python), (TOOLS / "bin/python", tools)):
        options = ("--output-reproducible", "--of", "JSON", "-o", str(bom))
        subprocess.run([TOOLS / "bin/cyclonedx-py", "environment", environment, *options], check=True)
    command = ["npm", "sbom", "--package-lock-only", "--sbom-format", "cyclonedx"]
    node.write_bytes(subprocess.run(command, cwd=NODE, stdout=subprocess.PIPE, check=True).stdout)
