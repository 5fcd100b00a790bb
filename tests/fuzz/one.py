"""Run one target under atheris: `python -m tests.fuzz.one <target> <libFuzzer's options and folders>`.

The product is instrumented during its import, so no import above may load it. atheris comes from build/tools,
which is searched after the product's own packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += map(str, Path(__file__).resolve().parents[2].glob("build/tools/lib/python*/site-packages"))

import atheris


def main() -> None:
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["gateway"]):
        from tests.fuzz.targets import TARGETS
    # libFuzzer starts this program again, through a shell, to merge
    itself = f"{sys.executable} -m tests.fuzz.one {name}"
    atheris.Setup([itself, *arguments], TARGETS[name])
    atheris.Fuzz()


main()
