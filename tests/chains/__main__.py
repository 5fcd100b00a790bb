"""Runs chains by the gateway and by themselves, and says where the two differ.

    python -m tests.chains [NAME...]

from the project's root; README.md has the rest. The exit status is 0 if only known cases differ.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def packages(folder: Path) -> Path:
    """Install the extra packages in a separate folder, never among the project's own. Raises SystemExit."""
    wanted = HERE / "requirements.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = folder.resolve() / f"python{version}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not (place / "installed").exists():
        print("installing the extra packages (first time only)", file=sys.stderr)
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-compile", "--target", str(place), "-r", str(wanted)),
        ]
        made = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if made.returncode:
            raise SystemExit(made.stderr)
        (place / "installed").touch()
    return place


def again(paths: list[str], compiled: Path) -> None:
    """Restart this program with these packages importable, and with their compiled files stored next to
    them."""
    if os.environ.get("CHAINS_READY"):
        return
    env = dict(os.environ, CHAINS_READY="1", PYTHONPATH=os.pathsep.join([str(ROOT), *paths]))
    if paths:  # without them, all modules are the project's, compiled already
        env["PYTHONPYCACHEPREFIX"] = str(compiled)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    os.execve(sys.executable, [sys.executable, "-m", "tests.chains", *sys.argv[1:]], env)


def listed() -> None:
    """Print the cases, grouped."""
    from tests.chains import runner
    from tests.chains.cases import CASES

    os.environ.setdefault("CHAINS_MODEL", "")
    runner.load()
    for about in sorted({known.about for known in CASES.values()}):
        print(f"{about}: {', '.join(known.name for known in CASES.values() if known.about == about)}")


def main() -> NoReturn:
    """Run and report. Ends the process, because chains may have opened threads that never end."""
    parser = argparse.ArgumentParser(prog="python -m tests.chains", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases, or groups of cases; none: all")
    parser.add_argument(
        "--packages", type=Path, default=ROOT / "build/chains", help="folder for the extra packages"
    )
    parser.add_argument("--quick", action="store_true", help="only what needs no extra package")
    parser.add_argument("-v", "--verbose", action="store_true", help="all cases, and both records")
    parser.add_argument("--list", action="store_true", help="the cases by their groups")
    options = parser.parse_args()
    place = [] if options.quick or options.list else [str(packages(options.packages))]
    again(place, options.packages.resolve() / "compiled")
    status = 0
    if options.list:
        listed()
    else:
        from tests.chains import runner

        running = runner.run(options.names, [str(ROOT), *place], quick=options.quick, verbose=options.verbose)
        try:
            status = 0 if runner.report(asyncio.run(running), verbose=options.verbose) else 1
        except RuntimeError as error:  # a required process could not be started
            print(error)
            status = 2
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
