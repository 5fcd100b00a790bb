"""The keeper of an embedded store: a program that starts a folder's server, and ends it with its last user.

    python -I -S embedded_keeper.py SOCKET [PROGRAM OPTION…]

It works in the store's folder. Without a program it keeps the server that runs there already: an earlier
keeper of that server was killed. It prints `ready`, or why there is no server, and closes its output.

The locks are files of the folder, by flock. The system gives up a process's lock when the process ends,
however it ends. `users.lock`: each process that uses the store holds it, shared; the keeper waits to have it
alone. `keeper.lock`: held by the keeper. `server.lock`: held by the server itself, which has inherited it, so
no two servers ever write into one folder. It imports nothing of ours, so that it starts within milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

USERS, KEEPER, SERVER = "users.lock", "keeper.lock", "server.lock"
LOG = "server.log"
READY = b"ready\n"
LOCK_SECONDS = 20.0  # for a server that ends to be gone
LOAD_SECONDS = 120.0  # for a server to read its log
END_SECONDS = 10.0  # for a server to end by itself
ASK_SECONDS = 2.0
POLL_SECONDS = 0.02
_LAST_BYTES = 2000  # of the server's own log, for whoever reads why it did not start
_MOST_INHERITED = 1024  # descriptors


class Failed(Exception):
    """There is no server; the text says why."""


def opened(path: str) -> int:
    """A lock file's descriptor, which no child inherits. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def taken(descriptor: int, kind: int) -> bool:
    """Whether this lock (`fcntl.LOCK_SH` or `LOCK_EX`) could be had without waiting, and is held now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def asked(path: str, command: bytes) -> bytes:
    """The beginning of the server's answer; empty where there is none in time."""
    with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError):
        link.settimeout(ASK_SECONDS)
        link.connect(path)
        link.sendall(command)
        return link.recv(64)
    return b""


def _locked(name: str) -> int:
    descriptor = opened(name)
    until = time.monotonic() + LOCK_SECONDS
    while not taken(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > until:
            raise Failed("a server that does not answer has this folder, or a keeper that does not end")
        time.sleep(POLL_SECONDS)
    return descriptor


def _started(command: Sequence[str]) -> int:
    """The server's process, which holds `server.lock`."""
    lock = _locked(SERVER)
    os.set_inheritable(lock, True)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    outputs = [(os.POSIX_SPAWN_DUP2, log, number) for number in (1, 2)]
    # Without an environment: no key of ours is the server's business.
    pid = os.posix_spawn(command[0], [*command], {}, file_actions=outputs)
    os.close(lock)
    os.close(log)
    return pid


def _await_answer(path: str, pid: int) -> None:
    until = time.monotonic() + LOAD_SECONDS
    while not asked(path, b"PING\r\n").startswith(b"+PONG"):
        if pid and os.waitpid(pid, os.WNOHANG)[0]:
            raise Failed("it has ended at its start")
        if time.monotonic() > until:
            raise Failed("it does not answer")
        time.sleep(POLL_SECONDS)


def _end(path: str, pid: int) -> None:
    """Ask the server to end, and where it does not, kill the one that we have started; then end, too."""
    asked(path, b"SHUTDOWN NOSAVE\r\n")  # everything is in the append-only file, which it syncs
    time.sleep(END_SECONDS)  # the main thread ends this process as soon as the server has ended
    if pid:
        os.kill(pid, signal.SIGKILL)
    time.sleep(END_SECONDS)
    os._exit(1)


def _end_when_unused(path: str, pid: int) -> None:
    fcntl.flock(opened(USERS), fcntl.LOCK_EX)  # waits; held to the end: whoever comes now comes after it
    _end(path, pid)


def _let_go() -> None:
    """Close input and output: whoever has started us reads to their end."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


def _told(text: bytes) -> None:
    with contextlib.suppress(OSError):  # whoever has started us is gone; the server ends with its last user
        os.write(1, text)
    _let_go()


def _why(error: Exception) -> bytes:
    text = f"{error}\n".encode()
    with contextlib.suppress(OSError), open(LOG, "rb") as log:
        log.seek(max(0, os.path.getsize(LOG) - _LAST_BYTES))
        return text + log.read()
    return text


def keep(path: str, command: Sequence[str]) -> None:
    """Start the server (or none without a command), and end it when nobody uses it any more."""
    keeper = _locked(KEEPER)
    pid = 0
    try:
        if command:
            pid = _started(command)
        _await_answer(path, pid)
    except (Failed, OSError) as error:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _told(_why(error))
        return
    _told(READY)
    signal.signal(signal.SIGTERM, lambda *_: asked(path, b"SHUTDOWN NOSAVE\r\n"))
    threading.Thread(target=_end_when_unused, args=(path, pid), daemon=True).start()
    fcntl.flock(opened(SERVER), fcntl.LOCK_EX)  # waits until the server has ended, of itself or by us
    if pid:
        os.waitpid(pid, 0)
    if os.path.dirname(path) != os.getcwd():  # a folder of the socket's own
        for remove, what in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
            with contextlib.suppress(OSError):  # a server that ends by itself has removed its socket
                remove(what)
    os.close(keeper)
    os._exit(0)


if __name__ == "__main__":
    os.closerange(3, _MOST_INHERITED)  # uvloop lets a child have its output twice, which would then never end
    if os.fork():
        os._exit(0)  # the keeper is nobody's child: it may outlive whoever has started it
    os.setsid()  # so that Ctrl-C in a terminal reaches neither it nor the server
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keep(sys.argv[1], sys.argv[2:])
