"""Run the graphs of this folder on LangGraph's own server and on the gateway, by the same clients, and say where the two differ.

    make langgraph ARGS="[NAME...]"

README.md has the rest.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def packages(folder: Path) -> tuple[Path, Path]:
    """An environment with LangGraph's server and clients, and a folder with the JavaScript ones: beside the project's, never in it."""
    wanted = HERE / "requirements.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = folder.resolve() / f"python{version}-{_digest(wanted)}"
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        print("installing LangGraph's server and clients (first time only)", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        _made(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "-r",
                str(wanted),
            ]
        )
        (place / "installed").touch()
    lock = HERE / "package-lock.json"
    node = folder.resolve() / f"node-{_digest(lock)}"
    if not (node / "installed").exists():
        print("installing the JavaScript clients (first time only)", file=sys.stderr)
        node.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, node)
        _made(["npm", "ci", "--silent", "--ignore-scripts", "--prefix", str(node)])
        (node / "installed").touch()
    return python, node


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _made(command: list[str]) -> None:
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(f"{made.stdout[-1000:]}\n{made.stderr[-2000:]}")


def again(folder: Path, argv: list[str], more: list[str]) -> Path:
    """Start anew in that environment; the folder of the JavaScript clients."""
    if ready := os.environ.get("LANGGRAPH_CASES_READY"):
        return Path(ready)
    python, node = packages(folder)
    env = dict(os.environ, LANGGRAPH_CASES_READY=str(node), PYTHONPATH=os.pathsep.join([*more, str(HERE)]))
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "LANGSMITH_TRACING": "false"}
    for name in [n for n in env if n.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
        del env[name]
    os.execve(python, [str(python), *argv], env)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases, or groups of cases; none: all")
    parser.add_argument(
        "--packages", type=Path, default=Path("build/langgraph"), help="folder for the packages (%(default)s)"
    )
    parser.add_argument(
        "--official",
        action="store_true",
        help="LangGraph's own server on both sides: all is the same, or a case is wrong",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also those that are the same, and both records where they differ",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write what LangGraph's own server said in the cases that are the same: for make test",
    )
    parser.add_argument("--list", action="store_true", help="the cases by their groups")
    options = parser.parse_args()
    if not Path("gateway/__main__.py").exists():
        raise SystemExit("run this from the project's root")
    if options.official:
        os.environ["LANGGRAPH_AGAINST"] = "official"
    node = again(options.packages, sys.argv, [])
    from conformance import runner

    if options.list:
        runner.load(["public"])
        for about in sorted({c.about for c in runner.CASES.values()}):
            print(f"{about}: {', '.join(c.name for c in runner.CASES.values() if c.about == about)}")
        return
    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    runner.main(
        ["public"], options.names, paths, node, secs=600, verbose=options.verbose, record=options.record
    )


if __name__ == "__main__":
    main()
