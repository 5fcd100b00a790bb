"""Explain a failure to the author of a chain, in the log, and in development to readers too.

The text of an exception may quote a prompt or a key. So outside development only its type and its stack are
shown. Errors that the product itself found are shown too, because they name only chains, stages and settings.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

from gateway.protocol.errors import WrongChain, stack_of

MOST_CHARACTERS = 2000  # most characters of an exception's text
MOST_FRAMES = 6
MOST_CAUSES = 4
_PRODUCT = Path(__file__).resolve().parents[2]
_PRODUCT_PARTS = tuple(str(_PRODUCT / name) for name in ("gateway", "holdfast_gateway", "workers"))
# The folders of libraries, as named and with links resolved: a virtual environment may be behind a link.
_LIBRARIES = tuple(
    named
    for path in set(sysconfig.get_paths().values())
    if path and len(path) > 1
    for named in {path, str(Path(path).resolve())}
)


def explained(error: BaseException, *, development: bool, made_at: str = "") -> str:
    """Return the text for the log: one sentence if the cause is known, otherwise the stack.

    In development the text has the exception's type and text, the frames of the author's own code, and the
    causes. If no frame is the author's, the text ends with `made_at`, the place of the chain's factory.
    """
    known = known_cause(error)
    if not development:
        return known or stack_of(error)
    if isinstance(error, WrongChain):
        return known
    told, seen, has_own = ([known] if known else []), 0, False
    cause: BaseException | None = error
    while cause is not None and seen < MOST_CAUSES:
        said = f"{type(cause).__qualname__}: {_text(cause)}"[:MOST_CHARACTERS]
        told += [("" if seen == 0 else "because of ") + said, *_frames(cause)]
        has_own = has_own or bool(_own_frames(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        seen += 1
    if made_at and not has_own:
        told.append(f"  the chain is made at {made_at}")
    return "\n".join(told)


def known_cause(error: BaseException) -> str:
    """Return one sentence if the cause of the error is known, otherwise an empty string.

    The sentence contains no values of users.
    """
    if isinstance(error, WrongChain):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    asked_environment = (len(frames) > 1 and frames[-1].filename == os.__file__) or (
        bool(frames) and frames[-1].filename == "<frozen os>"
    )
    if isinstance(error, KeyError) and asked_environment and error.args and isinstance(error.args[0], str):
        asker = frames[-2]
        return f"the environment variable {error.args[0]} is not set ({_shown(asker)} asks for it)"
    return ""


def _text(error: BaseException) -> str:
    """Return the exception's text. The text of a KeyError is returned without the quotes that Python adds."""
    quoted = isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str)
    return error.args[0] if quoted else str(error)


def _frames(error: BaseException) -> list[str]:
    """Return the last frames of the author's own code.

    If there are none, return the last two frames of all.
    """
    shown = _own_frames(error) or traceback.extract_tb(error.__traceback__)[-2:]
    return [f"  {_shown(frame)}: {frame.line}" for frame in shown[-MOST_FRAMES:]]


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not _is_foreign(frame.filename)]


def _shown(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} in {frame.name}"


def _is_foreign(file: str) -> bool:
    """Return whether a file belongs to a library, to Python or to the product.

    The chains that come with the product count as an author's code.
    """
    chains = str(_PRODUCT / "workers" / "chains")
    if file.startswith(chains) and Path(file).name not in ("registry.py", "making.py", "own.py"):
        return False
    return file.startswith(("<", *_PRODUCT_PARTS, *_LIBRARIES))
