"""`holdfast COMMAND`, which is `python -m gateway COMMAND`: what it takes is in `cli/parser.py`.

The command line is read before anything else is imported: `--help`, and what is no command, cost little.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.cli.parser import parser
from holdfast_gateway import __version__


def asked() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """What the command line says; ends the process where it asks for help, or for what there is not."""
    prog = Path(sys.argv[0]).stem
    known = parser(prog if prog == "holdfast" else "python -m gateway", __version__)
    return known, known.parse_args()


def run() -> int:
    """Run what the command line asks for; answers the exit code."""
    known, given = asked()
    from gateway.process import execute

    return execute(known, given)


if __name__ == "__main__":
    sys.exit(run())
