"""Run the cases and report those that differ."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chains import asked, compare, direct, written
from tests.chains.cases import CASES, Case, Check, Talk
from tests.chains.known import KNOWN
from tests.chains.processes import Gateway, Kit

AT_ONCE = 5
SECONDS = 90  # for one case, in the gateway and directly


@dataclass
class Verdict:
    """The result of one case: its differences, and the names of ALLOWED that were needed."""

    name: str
    about: str
    differs: list[compare.Difference] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    records: str = ""


def modules() -> list[str]:
    """Return the modules that contain cases."""
    return sorted(f"{written.__name__}.{found.name}" for found in pkgutil.iter_modules(written.__path__))


def load() -> None:
    """Import these modules, so that each case registers itself, and the imports that most chains need.

    Chains are made in the event loop. A long import there blocks it, and the gateway would close idle
    connections.
    """
    for module in (*modules(), "langchain_openai", "gateway.settings"):
        importlib.import_module(module)


def chosen(names: Sequence[str], *, quick: bool) -> list[Case | Talk | Check]:
    """Return the cases of these names and groups; without names, all cases.

    `quick`: leave out cases that need more packages, and checks that start separate gateways, which other
    tests of the suite have too.

    Raises SystemExit for a name of no case and no group.
    """
    if unknown := [n for n in names if not any(n in (known.name, known.about) for known in CASES.values())]:
        raise SystemExit(f"no case and no group is named {', '.join(unknown)}")
    found = [known for known in CASES.values() if not names or known.name in names or known.about in names]
    return [known for known in found if not (quick and (known.needs or getattr(known, "alone", False)))]


async def run(
    names: Sequence[str], paths: Sequence[str], *, quick: bool = False, verbose: bool = False
) -> list[Verdict]:
    """Return a verdict for each chosen case. `paths` are Python's search paths for the extra packages.

    Raises RuntimeError if a required process cannot be started.
    """
    warnings.showwarning = lambda *_, **__: None  # warnings of chains are ignored
    logging.disable()
    async with Kit(modules(), paths) as kit:
        starting = asyncio.create_task(kit.gateway())
        await asyncio.sleep(0)
        try:
            await asyncio.to_thread(load)
            wanted = chosen(names, quick=quick)
        except BaseException:
            starting.cancel()
            raise
        gateway = await starting
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(known: Case | Talk) -> Verdict:
            async with limit:
                return await _verdict(known, gateway, verbose=verbose)

        async def all_plain() -> list[Verdict]:
            found = await asyncio.gather(*(one(known) for known in wanted if not isinstance(known, Check)))
            await gateway.stop(5)
            return found

        checks = [known for known in wanted if isinstance(known, Check)]
        plain, checked = await asyncio.gather(all_plain(), _checks(checks, kit))
        order = {known.name: at for at, known in enumerate(wanted)}
        return sorted([*plain, *checked], key=lambda verdict: order[verdict.name])


async def _verdict(known: Case | Talk, gateway: Gateway, *, verbose: bool) -> Verdict:
    began, verdict = time.monotonic(), Verdict(known.name, known.about)
    want: Any
    see: Any
    try:
        async with asyncio.timeout(SECONDS):
            if isinstance(known, Talk):
                want, see = await asyncio.gather(
                    direct.wanted_turns(known), asked.seen_turns(known, gateway.url)
                )
                for n, (one, other) in enumerate(zip(want, see, strict=True), 1):
                    verdict.differs += [
                        (f"turn {n}: {what}", a, b) for what, a, b in compare.turn_differences(one, other)
                    ]
            else:
                want, see = await asyncio.gather(direct.wanted(known), asked.seen(known, gateway.client))
                verdict.differs, verdict.allowed = compare.differences(want, see, known.allow)
        if verbose:
            verdict.records = f"    direct : {want}\n    gateway: {see}"
    except TimeoutError:
        verdict.differs = [("run", "an end", f"none in {SECONDS} s")]
    except Exception as error:
        verdict.differs = [("run", "", f"{type(error).__name__}: {error}"[:200])]
        verdict.records = traceback.format_exc() if verbose else ""
    verdict.seconds = time.monotonic() - began
    return verdict


async def _checks(checks: Sequence[Check], kit: Kit) -> list[Verdict]:
    """Run the checks: those with the same settings share a gateway; groups run concurrently, two at a
    time."""
    groups: dict[str, list[Check]] = {}
    for known in checks:
        groups.setdefault(known.name if known.alone else repr(sorted(known.env.items())), []).append(known)
    limit = asyncio.Semaphore(2)

    async def group(members: Sequence[Check]) -> list[Verdict]:
        async with limit:
            found, gateway = [], None
            for known in members:
                if not known.alone:
                    gateway = gateway or await kit.gateway(env=known.env)
                found.append(await _check(known, kit, gateway))
            if gateway:
                await gateway.stop(5)
            return found

    return [verdict for found in await asyncio.gather(*map(group, groups.values())) for verdict in found]


async def _check(known: Check, kit: Kit, gateway: Gateway | None) -> Verdict:
    began, verdict = time.monotonic(), Verdict(known.name, known.about)
    try:
        async with asyncio.timeout(SECONDS):
            want, see = await known.run(kit, *([gateway] if gateway else []))
        verdict.differs = [
            (what, str(want[what])[:160], str(see.get(what))[:200])
            for what in want
            if want[what] != see.get(what)
        ]
    except Exception as error:
        verdict.differs = [("run", "", f"{type(error).__name__}: {error}"[:300])]
    verdict.seconds = time.monotonic() - began
    return verdict


def report(verdicts: Sequence[Verdict], *, verbose: bool) -> bool:
    """Print a line for each case that differs, and a summary; return whether all results are as expected.

    A case in KNOWN must differ: its difference is intended, or waits for a feature.
    """
    good = True
    for verdict in verdicts:
        reason = KNOWN.get(verdict.name)
        said = "; ".join(f"{what}: {a or 'nothing'}  ≠  {b or 'nothing'}" for what, a, b in verdict.differs)
        if reason:
            note = f" [known: {reason}]" if verdict.differs else f" [it should differ: {reason}]"
        else:
            note = f" [allowed: {', '.join(sorted(set(verdict.allowed)))}]" if verdict.allowed else ""
        bad = bool(verdict.differs) != bool(reason)
        good = good and not bad
        if bad or verdict.differs or verbose:
            took = f" {verdict.seconds:.1f} s" if verbose else ""
            print(f"{verdict.name} ({verdict.about}): {said or 'same'}{note}{took}")
            if verdict.records:
                print(verdict.records)
    differing = [verdict.name for verdict in verdicts if verdict.differs]
    print(
        f"{len(verdicts) - len(differing)} of {len(verdicts)} chains the same; "
        f"differing: {', '.join(differing) or 'none'}"
    )
    return good
