"""The modules of GATEWAY_CHAINS, imported at the start: what is wrong with one is said in a few lines."""

from __future__ import annotations

import importlib
import logging
import traceback
from collections.abc import Iterable

from gateway.settings import Settings
from workers.chains.explain import explained

_log = logging.getLogger("holdfast.registry")


def modules_of(settings: Settings) -> list[str]:
    """The modules that GATEWAY_CHAINS names."""
    return [name for name in map(str.strip, settings.chains.split(",")) if name]


def imported(module: str) -> None:
    """Import a module of chains. Raises ValueError where there is none, and whatever its code raises."""
    if module.startswith("."):
        raise ValueError(f"GATEWAY_CHAINS: {module} must be an absolute name")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not _is_missing(module, error):
            raise  # it is there; what it imports is not
        raise ValueError(
            f"GATEWAY_CHAINS: there is no module {module}: start in the folder that has "
            f"{module.partition('.')[0]}.py, or name that folder in PYTHONPATH"
        ) from error


def check(settings: Settings) -> None:
    """Import all of them. Raises ValueError that says in a few lines what to do about one."""
    for module in modules_of(settings):
        try:
            imported(module)
        except (Exception, SystemExit) as error:
            raise ValueError(_told(module, error)) from error


def tell_of_empty(modules: Iterable[str], chains: Iterable[str]) -> None:
    """Log which of these modules have marked no chain; `chains` are the modules of those that are marked."""
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
    """The last line of code that is no part of Python's importing."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<")]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "where it is not known"
