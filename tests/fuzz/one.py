"""One target under atheris: `python -m tests.fuzz.one <target> <libFuzzer's options and folders>`.

The product is instrumented while it is imported, so nothing above imports it. atheris comes from build/tools,
behind the product's own packages, which win.
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
    itself = f"{sys.executable} -m tests.fuzz.one {name}"  # libFuzzer starts it again, by a shell, to merge
    atheris.Setup([itself, *arguments], TARGETS[name])
    atheris.Fuzz()


main()
