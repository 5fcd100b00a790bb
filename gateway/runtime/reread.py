"""Read a file again when an operator changes it while the process runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 1.0
TOLD_SECONDS = 60.0  # how often the log repeats that the file is wrong


class Reread:
    """A file that is read again after a change. `take` is called with the bytes of the file.

    `take` raises ValueError for a wrong file, with a text that quotes nothing of the file. While the file is
    wrong or missing (since `wrong_since`), the earlier result of `take` stays in use.
    """

    def __init__(self, path: Path, take: Callable[[bytes], None], most_bytes: int) -> None:
        """Read the file for the first time. Raises OSError or ValueError."""
        self._path = path
        self._take = take
        self._most_bytes = most_bytes
        self._looked_at = 0.0
        self._stamp: tuple[int, ...] = ()
        self._told, self._told_at = "", 0.0  # the logged error, and when it was logged
        self.wrong_since: float | None = None  # by `monotonic`
        self._read()

    def look(self, wrong: Callable[[str], None], right: Callable[[], None]) -> None:
        """Read the file again if it has changed. This checks at most once in LOOK_SECONDS.

        `wrong` is called with the error at once, and then once in TOLD_SECONDS. `right` is called when the
        file is right again.
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
