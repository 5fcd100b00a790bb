"""The keeper of an embedded store: a program that starts a folder's server, and ends it with its last user.

    python -I -S embedded_keeper.py SOCKET [PROGRAM OPTION…]

The program works in the store's folder. Without PROGRAM it keeps the server that already runs in the folder,
because an earlier keeper of that server was killed. It prints `ready`, or the reason why there is no server,
and closes its output.

The locks are files of the folder, locked by flock. The system releases a process's lock when the process
ends, however it ends. `users.lock`: each process that uses the store has a shared lock on it; the keeper
waits for an exclusive lock. `keeper.lock`: locked by the keeper. `server.lock`: locked by the server itself,
which has inherited the lock, so two servers never write into one folder. This program imports nothing of
ours, so that it starts within milliseconds.
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
LOCK_SECONDS = 20.0  # time limit for a server that is stopping
LOAD_SECONDS = 120.0  # time limit for a server to read its data
END_SECONDS = 10.0  # time limit for a server to end by itself
ASK_SECONDS = 2.0
POLL_SECONDS = 0.02
# How much of the server's own log is printed when it did not start.
_LAST_BYTES = 2000
_MOST_INHERITED = 1024  # file descriptors that are closed at the start


class Failed(Exception):
    """There is no server; the text says why."""


def opened(path: str) -> int:
    """Open a lock file. Returns its descriptor, which no child inherits. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def taken(descriptor: int, kind: int) -> bool:
    """Try to lock without waiting. Return whether this process now has the lock.

    `kind` is `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def asked(path: str, command: bytes) -> bytes:
    """Return the first bytes of the server's answer, or nothing if no answer comes in time."""
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
    """Start the server. Return its process id. The server inherits the lock `server.lock`."""
    lock = _locked(SERVER)
    os.set_inheritable(lock, True)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    outputs = [(os.POSIX_SPAWN_DUP2, log, number) for number in (1, 2)]
    # The environment is empty, because the server must not get any of our keys.
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
    """Ask the server to end. If it does not, kill it, if this process has started it.

    Then end this process.
    """
    asked(path, b"SHUTDOWN NOSAVE\r\n")  # all data is in the append-only file, which the server syncs
    time.sleep(END_SECONDS)  # the main thread ends this process as soon as the server has ended
    if pid:
        os.kill(pid, signal.SIGKILL)
    time.sleep(END_SECONDS)
    os._exit(1)


def _end_when_unused(path: str, pid: int) -> None:
    # Waits until no process uses the store. The lock is kept to the end, so a new user must wait for this
    # end.
    fcntl.flock(opened(USERS), fcntl.LOCK_EX)
    _end(path, pid)


def _let_go() -> None:
    """Close input and output: the process that started the keeper reads to their end."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


def _told(text: bytes) -> None:
    # The process that started the keeper may be gone. The server ends with its last user.
    with contextlib.suppress(OSError):
        os.write(1, text)
    _let_go()


def _why(error: Exception) -> bytes:
    text = f"{error}\n".encode()
    with contextlib.suppress(OSError), open(LOG, "rb") as log:
        log.seek(max(0, os.path.getsize(LOG) - _LAST_BYTES))
        return text + log.read()
    return text


def keep(path: str, command: Sequence[str]) -> None:
    """Start the server, and end it when no process uses it any more. Without a command, start no server."""
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
    # Waits until the server has ended, by itself or stopped by us.
    fcntl.flock(opened(SERVER), fcntl.LOCK_EX)
    if pid:
        os.waitpid(pid, 0)
    if os.path.dirname(path) != os.getcwd():  # the socket has a folder of its own
        for remove, what in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
            # A server that ends by itself has already removed its socket.
            with contextlib.suppress(OSError):
                remove(what)
    os.close(keeper)
    os._exit(0)


if __name__ == "__main__":
    # uvloop may give a child its output pipe twice; the second copy would never be closed.
    os.closerange(3, _MOST_INHERITED)
    if os.fork():
        # The keeper has no parent: it may outlive the process that started it.
        os._exit(0)
    # So that Ctrl-C in a terminal does not reach the keeper or the server.
    os.setsid()
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keep(sys.argv[1], sys.argv[2:])
