"""`holdfast COMMAND`, which is the same as `python -m gateway COMMAND`. Its arguments are in `cli/parser.py`.

The command line is parsed before anything else is imported. So `--help` and errors in the command line are
fast.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.cli.parser import parser
from holdfast_gateway import __version__


def asked() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Parse the command line. The process ends here for `--help` or for an unknown command."""
    prog = Path(sys.argv[0]).stem
    known = parser(prog if prog == "holdfast" else "python -m gateway", __version__)
    return known, known.parse_args()


def run() -> int:
    """Run the command of the command line. Return the exit code."""
    known, given = asked()
    from gateway.process import execute

    return execute(known, given)


if __name__ == "__main__":
    sys.exit(run())
