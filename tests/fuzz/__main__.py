"""`make fuzz`: every target for its share of SECONDS, one after the other, under atheris.

What is kept in tests/fuzz/corpus is the start; what adds coverage joins it, and what no longer does leaves.
An input that breaks a property is kept there as well, as `found-…`, where the suite runs it from then on.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.targets import CORPUS, TARGETS

LONGEST_BYTES = 2048
MOST_FILES = 30  # files kept for each target
MOST_BYTES = 16 * 1024
SLOWEST_SECONDS = 10  # limit for one input
WORDS = CORPUS.parent / "words.dict"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    print(f"{'target':16}{'runs':>12}{'a second':>12}{'corpus':>8}  found")
    broken = [name for name in names if not _fuzz(name, max(1, options.seconds // len(names)))]
    if broken:
        print(f"kept as found-… in tests/fuzz/corpus; the suite fails at them: {', '.join(broken)}")
    return 1 if broken else 0


def _fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target; return whether all properties held."""
    kept = CORPUS / name
    with TemporaryDirectory(prefix="holdfast-fuzz-") as folder:
        grown, small, found = (Path(folder) / part for part in ("grown", "small", "found"))
        for path in (grown, small, found):
            path.mkdir()
        said = _atheris(name, folder, f"-max_total_time={seconds}", f"-artifact_prefix={found}/", grown, kept)
        runs = _figure(said, "number_of_executed_units")
        if not runs:
            raise SystemExit(f"{name} did not run:\n{said}")
        _atheris(name, folder, "-set_cover_merge=1", small, kept, grown)
        inputs = list(found.iterdir())
        _keep(kept, small, inputs)
        shown = ", ".join(path.name for path in inputs) or "nothing"
        rate = _figure(said, "average_exec_per_sec")
        print(f"{name:16}{runs:12,}{rate:12,}{len(list(kept.iterdir())):8}  {shown}", flush=True)
        if inputs:
            print(said[said.find("=== Uncaught") :], flush=True)
        return not inputs


def _atheris(name: str, folder: str, *arguments: str | Path) -> str:
    """Run atheris and return its output. Its temporary files go into a folder that is removed, because it
    exits without cleaning up."""
    bounds = (f"-max_len={LONGEST_BYTES}", f"-timeout={SLOWEST_SECONDS}", f"-dict={WORDS}")
    command = [sys.executable, "-m", "tests.fuzz.one", name, *bounds, "-print_final_stats=1", *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": folder},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def _figure(said: str, name: str) -> int:
    found = re.search(rf"stat::{name}: *(\d+)", said)
    return int(found[1]) if found else 0


def _keep(kept: Path, small: Path, found: list[Path]) -> None:
    """Keep the smallest inputs with the most coverage, within the limits, and every input that ever broke a
    property."""
    chosen = sorted(small.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    size = 0
    names = set()
    for path in chosen[:MOST_FILES]:
        size += path.stat().st_size
        if size > MOST_BYTES:
            break
        names.add(path.name)
        shutil.copyfile(path, kept / path.name)
    for path in found:
        shutil.copyfile(path, kept / f"found-{path.name[-12:]}")
    for path in kept.iterdir() if names else ():
        if path.name not in names and not path.name.startswith("found-"):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
