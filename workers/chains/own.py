"""Import the modules of GATEWAY_CHAINS at the start. A problem with a module is explained in a few lines."""

from __future__ import annotations

import importlib
import logging
import traceback
from collections.abc import Iterable

from gateway.settings import Settings
from workers.chains.explain import explained

_log = logging.getLogger("holdfast.registry")


def modules_of(settings: Settings) -> list[str]:
    """Return the names of the modules in GATEWAY_CHAINS."""
    return [name for name in map(str.strip, settings.chains.split(",")) if name]


def imported(module: str) -> None:
    """Import a module of chains. Raises ValueError when it does not exist, and whatever its code raises."""
    if module.startswith("."):
        raise ValueError(f"GATEWAY_CHAINS: {module} must be an absolute name")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not _is_missing(module, error):
            raise  # the module exists, but a module that it imports is missing
        raise ValueError(
            f"GATEWAY_CHAINS: there is no module {module}: start in the folder that has "
            f"{module.partition('.')[0]}.py, or name that folder in PYTHONPATH"
        ) from error


def check(settings: Settings) -> None:
    """Import all modules of GATEWAY_CHAINS.

    Raises ValueError, which says in a few lines what to do about a module that fails.
    """
    for module in modules_of(settings):
        try:
            imported(module)
        except (Exception, SystemExit) as error:
            raise ValueError(_told(module, error)) from error


def tell_of_empty(modules: Iterable[str], chains: Iterable[str]) -> None:
    """Log which of these modules have marked no chain. `chains` are the modules of the marked chains."""
    marked = set(chains)
    for module in modules:
        if not any(one == module or one.startswith(f"{module}.") for one in marked):
            _log.warning(
                'GATEWAY_CHAINS: the module %s has no chain: mark a factory with @chain("name"), from '
                "holdfast_gateway import chain",
                module,
            )


def _told(module: str, error: BaseException) -> str:
    if isinstance(error, ValueError) and str(error).startswith("GATEWAY_CHAINS: "):
        return str(error)
    begins = f"GATEWAY_CHAINS: the module {module} cannot be imported: "
    if isinstance(error, SyntaxError):
        code = (error.text or "").rstrip()
        mark = " " * max(0, (error.offset or 1) - 1) + "^"
        return f"{begins}{error.msg} ({error.filename}:{error.lineno})\n  {code}\n  {mark}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return (
            f"{begins}it needs the package {package}, which is not installed ({_place(error)})\n"
            f"  python -m pip install {package}    # or what else brings that module"
        )
    return begins + explained(error, development=True)


def _is_missing(module: str, error: ModuleNotFoundError) -> bool:
    return bool(error.name) and (module + ".").startswith(f"{error.name}.")


def _place(error: BaseException) -> str:
    """Return the last line of code outside Python's import machinery."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<")]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "where it is not known"
