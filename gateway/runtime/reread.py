"""A file that an operator may change while the process runs: it is read again when it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 1.0
TOLD_SECONDS = 60.0  # how often the log says that the file is wrong


class Reread:
    """`take` is given the file's bytes. For a wrong file it raises ValueError, which quotes nothing of them.

    What `take` has made of the file before stands while the file is wrong or away, since `wrong_since`.
    """

    def __init__(self, path: Path, take: Callable[[bytes], None], most_bytes: int) -> None:
        """Reads it. Raises OSError or ValueError."""
        self._path = path
        self._take = take
        self._most_bytes = most_bytes
        self._looked_at = 0.0
        self._stamp: tuple[int, ...] = ()
        self._told, self._told_at = "", 0.0  # what the log says of it, and since when
        self.wrong_since: float | None = None  # by the clock `monotonic`
        self._read()

    def look(self, wrong: Callable[[str], None], right: Callable[[], None]) -> None:
        """Read it again where it has changed; at most once in LOOK_SECONDS.

        `wrong` is told why at once, and then once in TOLD_SECONDS; `right`, when the file is right again.
        """
        now = time.monotonic()
        if now - self._looked_at <= LOOK_SECONDS:
            return
        try:
            self._read()
        except (OSError, ValueError) as error:
            if self.wrong_since is None:
                self.wrong_since = now
            why = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
            if why != self._told or now - self._told_at > TOLD_SECONDS:
                self._told, self._told_at = why, now
                wrong(why)
        else:
            if self.wrong_since is not None:
                self.wrong_since, self._told = None, ""
                right()

    def _read(self) -> None:
        self._looked_at = time.monotonic()
        status = self._path.stat()
        stamp = (status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return
        if status.st_size > self._most_bytes:
            raise ValueError(f"it has more than {self._most_bytes} bytes")
        self._take(self._path.read_bytes())
        self._stamp = stamp
