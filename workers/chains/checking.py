"""Check whether the chains of a process can be imported and created. `doctor` uses this."""

from __future__ import annotations

import asyncio
import importlib
import threading

from gateway.settings import Settings
from workers.chains.explain import known_cause
from workers.chains.own import modules_of
from workers.chains.registry import Registry

NAMES = "GATEWAY_CHAINS"


async def wrong_with(settings: Settings) -> str:
    """Return what is wrong with the modules of GATEWAY_CHAINS or with their chains. Empty: nothing is wrong.

    The import runs in a daemon thread. If the import of a module never ends, only this thread is blocked.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[str] = loop.create_future()

    def settle(told: str) -> None:
        if not answered.done():
            answered.set_result(told)

    def look() -> None:
        told = _imported(settings)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, told)

    threading.Thread(target=look, name="chains", daemon=True).start()
    return await answered or await _made(settings)


def _imported(settings: Settings) -> str:
    for module in modules_of(settings):
        try:
            if not module.startswith("."):
                importlib.import_module(module)
        except BaseException as error:  # a module may call sys.exit()
            own = isinstance(error, ModuleNotFoundError) and (module + ".").startswith(f"{error.name}.")
            if own:
                return f"{NAMES}: there is no module {module}: is its folder in PYTHONPATH?"
            return f"{NAMES}: {module} cannot be imported: {_why(error)}"
    try:
        Registry(settings)
    except ValueError as error:
        return str(error)
    except BaseException as error:
        return f"{NAMES}: the chains cannot be read: {_why(error)}"
    return ""


async def _made(settings: Settings) -> str:
    registry = Registry(settings)
    own = modules_of(settings)
    try:
        for name, where in registry.places().items():
            if not any(f"{where}.".startswith(f"{module}.") for module in own):
                continue
            try:
                await registry.load(name)
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:
                return f"{NAMES}: the chain {name} cannot be made: {_why(error)}"
    finally:
        await registry.close()
    return ""


def _why(error: BaseException) -> str:
    """Return the cause without the exception's text, which may quote a key or a prompt.

    The name of a missing module is included.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the module {error.name} is not installed"
    return known_cause(error) or type(error).__name__
