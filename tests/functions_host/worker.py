"""The runtime, started once for an app folder and asked to run functions.

The calls and their order are the host's: init (which imports and indexes the app and starts
the runtime's own HTTP server), metadata, load, then one invocation after another.

Invariant: one Worker in a process; the runtime keeps its state in module globals.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import azure_functions_runtime as runtime

from . import protos
from .bindings import Function, read_function

LOOPBACK = "127.0.0.1"
START_LIMIT_S = 30


class IndexingError(RuntimeError):
    """The runtime could not index the app; the text is the runtime's own."""


class InvocationError(RuntimeError):
    """A function failed; `error_type` is the name of the exception it raised."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.error_type = message.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Worker:
    functions: tuple[Function, ...]
    http_uri: str | None
    """The runtime's own HTTP server; None for an app without HTTP functions."""

    async def invoke(self, invocation: SimpleNamespace) -> None:
        """Runs one function to its end. Raises InvocationError."""
        response = await runtime.invocation_request(_message(invocation_request=invocation))
        _check(response.result, InvocationError)


async def start_worker(app_dir: Path) -> Worker:
    """Indexes the app. Raises IndexingError, BindingError, TimeoutError."""
    sys.path.insert(0, str(app_dir))
    os.chdir(app_dir)
    runtime.start_threadpool_executor()
    http_uri = await _init(app_dir)
    functions = await _index()
    if http_uri is not None:
        async with asyncio.timeout(START_LIMIT_S):
            await _accepting(http_uri)
    return Worker(functions, http_uri)


async def _init(app_dir: Path) -> str | None:
    init = SimpleNamespace(capabilities={}, function_app_directory=str(app_dir))
    response = await runtime.worker_init_request(_message(worker_init_request=init))
    _check(response.result, IndexingError)
    http_uri: str | None = response.capabilities.get("HttpUri")
    return http_uri


async def _index() -> tuple[Function, ...]:
    response = await runtime.functions_metadata_request(_message())
    if not response.function_metadata_results:
        raise IndexingError("no functions found: is there a function_app.py in the app folder?")
    functions = tuple(
        read_function(found.name, found.function_id, found.raw_bindings, os.environ)
        for found in response.function_metadata_results
    )
    for function in functions:
        load = SimpleNamespace(function_id=function.function_id)
        loaded = await runtime.function_load_request(_message(function_load_request=load))
        _check(loaded.result, IndexingError)
    return functions


async def _accepting(http_uri: str) -> None:
    """Returns when the server accepts; the runtime starts it without waiting for it."""
    address = urlsplit(http_uri)
    while True:
        try:
            _, writer = await asyncio.open_connection(address.hostname, address.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0)
            continue
        writer.close()
        await writer.wait_closed()
        return


def _message(**content: Any) -> SimpleNamespace:
    return SimpleNamespace(
        request=SimpleNamespace(**content),
        properties={"host": LOOPBACK, "protos": protos},
    )


def _check(result: protos.StatusResult, error: type[RuntimeError]) -> None:
    if result.status != protos.StatusResult.Success:
        raise error(f"{result.exception.message}\n{result.exception.stack_trace}")
