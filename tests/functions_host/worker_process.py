"""The worker, a process of its own: Azure Functions' Python runtime, which does what the host asks for.

In Azure this is the platform's worker.py: it runs the runtime in the main thread's event loop, hands each log
record to the host, and ends when its process is told to. What is printed goes to the console, which the host
reads.

Invariant: nothing of the runtime, the extension or the app is patched. Packages that are installed here, and
not in Azure, where they would be used unasked, cannot be imported.
"""

import asyncio
import ctypes
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from . import protos
from .channel import Sender, opened, receive

LOOPBACK = "127.0.0.1"
NOT_DEPLOYED = ("httptools", "uvloop")  # uvicorn uses these if they are installed
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Refused(Exception):
    """The runtime's answer is a failure; the text is the runtime's own."""


class _ToHost(logging.Handler):
    """Hands each record to the host, as the platform's worker does: from `info` up."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.send("log", self.format(record))


def run(app_dir: Path, commands: int, answers: int, host: int) -> NoReturn:
    """Run as the worker of this host (a process id) until the process ends. The descriptors are of two
    pipes."""
    _end_with(host)
    code = 1
    try:
        asyncio.run(_serve(app_dir, commands, Sender(answers)))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # other resources inherited by the fork belong to the host


def _end_with(host: int) -> None:
    """Die with the host: in Azure an instance is removed as a whole."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:
        os._exit(1)  # the host has ended already


async def _serve(app_dir: Path, commands: int, sender: Sender) -> None:
    logging.basicConfig(level=logging.INFO, handlers=[_ToHost(sender)])
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(NOT_DEPLOYED))  # None makes the import fail
    sys.path.insert(0, str(app_dir))
    os.chdir(app_dir)
    import azure_functions_runtime as runtime

    runtime.start_threadpool_executor()
    reader = await opened(commands)
    running: set[asyncio.Task[None]] = set()
    while (command := await receive(reader)) is not None:
        task = asyncio.create_task(_answer(sender, runtime, *command))
        running.add(task)
        task.add_done_callback(running.discard)


async def _answer(sender: Sender, runtime: Any, number: int, kind: str, content: Any) -> None:
    try:
        sender.send("answer", number, await _asked(runtime, kind, content), None)
    except Refused as error:
        sender.send("answer", number, None, str(error))
    except Exception as error:
        sender.send("answer", number, None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


async def _asked(runtime: Any, kind: str, content: Any) -> Any:
    match kind:
        case "init":
            init = SimpleNamespace(capabilities={}, function_app_directory=content)
            answer = await runtime.worker_init_request(_message(worker_init_request=init))
            return _checked(answer).capabilities.get("HttpUri")
        case "metadata":
            answer = await runtime.functions_metadata_request(_message())
            found = answer.function_metadata_results or ()
            return [(each.name, each.function_id, list(each.raw_bindings)) for each in found]
        case "load":
            load = SimpleNamespace(function_id=content)
            _checked(await runtime.function_load_request(_message(function_load_request=load)))
        case "invoke":
            _checked(await runtime.invocation_request(_message(invocation_request=content)))
    return None


def _message(**content: Any) -> SimpleNamespace:
    return SimpleNamespace(
        request=SimpleNamespace(**content),
        properties={"host": LOOPBACK, "protos": protos},
    )


def _checked(answer: Any) -> Any:
    if answer.result.status != protos.StatusResult.Success:
        raise Refused(f"{answer.result.exception.message}\n{answer.result.exception.stack_trace}")
    return answer
