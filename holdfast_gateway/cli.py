"""The command `holdfast`.

`new` and `--version` need no extra. All other commands are those of `python -m gateway`.

As with `python -m`, modules of the current folder can be imported, because the chains of a project are there.
"""

from __future__ import annotations

import os
import sys

from holdfast_gateway import __version__
from holdfast_gateway.extras import check_own, needs


def main() -> int:
    """Run the command of the command line. Return the exit code."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        check_own()
        if sys.argv[1:] == ["--version"]:
            print(f"holdfast {__version__}")
            return 0
        if sys.argv[1:2] == ["new"]:
            from holdfast_gateway.new import made  # imported here because it imports parts of `gateway`

            return made(sys.argv[2:])
        from gateway.__main__ import asked

        parser, given = asked()
        with needs("server,worker", "this command"):
            from gateway.process import execute
    except ImportError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 2
    return execute(parser, given)
