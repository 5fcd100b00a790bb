"""Run sets of cases against both servers, and report those that differ."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import pkgutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from conformance import compare, normal
from conformance.cases import CASES, At, Case, status_of
from conformance.processes import Servers, _end_of

AT_ONCE = 8
_ends = [float("inf")]  # deadline of the whole run, on the monotonic clock


def modules_of(package: str) -> tuple[list[str], list[str], list[str]]:
    """Return the modules of a set: its cases, its graphs, and its JavaScript files."""
    found = importlib.import_module(package)
    names = sorted(f"{package}.{m.name}" for m in pkgutil.iter_modules(found.__path__))
    scripts = sorted(str(p) for folder in found.__path__ for p in Path(folder).glob("*.mjs"))
    graphs = [n for n in names if n.endswith(".graphs")]
    return [n for n in names if n not in graphs], graphs, scripts


def load(packages: list[str]) -> tuple[list[str], list[str]]:
    """Import the cases, which register themselves; return the modules of graphs, and the scripts."""
    graphs, scripts = [], []
    for package in dict.fromkeys(["public", *packages]):
        if package not in packages:
            graphs += modules_of(package)[1]
            continue
        cases, more, files = modules_of(package)
        for name in cases:
            importlib.import_module(name)
        graphs += more
        scripts += files
    return graphs, scripts


async def _one(known: Case, url: str) -> dict[str, Any]:
    at = At(url)
    try:
        secs = min(known.secs, max(1.0, _ends[0] - time.monotonic()))
        await asyncio.wait_for(known.run(at), secs)
    except TimeoutError:
        at.saw["raised"] = f"no end within {secs:.0f} s"
    except Exception as error:
        at.saw["raised"] = f"{type(error).__name__}: {str(error)[:160]}"
        at.saw["raised_status"] = status_of(error)
    finally:
        for client in (at.client,):
            with contextlib.suppress(Exception):
                await client.http.client.aclose()
    return json.loads(json.dumps(at.saw, default=str))


def _verdict(known: Case | None, ours: Any, theirs: Any) -> list[tuple[str, str, str]]:
    """Return the differences of a case. `ours` is the record of LangGraph's own server, `theirs` the gateway's."""
    ours, theirs = dict(ours), dict(theirs)
    if "raised" in ours:
        return [
            (
                "raised",
                compare.shown(ours["raised"], 200),
                "LangGraph's own server gives no answer to compare with",
            )
        ]
    if known and "raised" in theirs and "raised" not in ours:
        told = str(theirs["raised"])
        if theirs.get("raised_status") in (400, 404, 405, 422) and any(
            name in told for name in known.refusable
        ):
            return []
    for one in (ours, theirs):
        one.pop("raised_status", None)
    if "raised" in theirs and "raised" not in ours:
        return [("raised", "nothing", compare.shown(theirs["raised"], 200))]
    if known:
        for name in known.allow:
            for allowed in [k for k in ours if f"({name})" in k]:
                theirs[allowed] = ours[allowed]
    return compare.differences(ours, theirs)


async def run(
    packages: list[str], names: list[str], paths: list[str], node: Path, secs: float
) -> list[tuple]:
    """Return (name, about, differences, both records) for each case."""
    from conformance.graphs import GRAPHS

    warnings.simplefilter("ignore")
    began = time.monotonic()
    _ends[0] = began + secs
    graphs, scripts = load(packages)
    for module in graphs:
        importlib.import_module(module)
    chosen = [c for c in CASES.values() if not names or c.name in names or c.about in names]
    known = {c.name for c in CASES.values()} | {c.about for c in CASES.values()}
    if names and not chosen and not scripts:
        raise SystemExit(f"no case and no group is named {', '.join(n for n in names if n not in known)}")
    against = os.environ.get("LANGGRAPH_AGAINST", "gateway")
    with Servers(graphs, list(GRAPHS), paths) as servers:
        oracle = servers.official()
        other = (
            servers.gateway()
            if against == "gateway"
            else servers.official()
            if against == "official"
            else oracle
        )
        for url in (oracle, other):
            await asyncio.to_thread(servers.wait, url)
        if hook := os.environ.get("LANGGRAPH_SPOIL"):
            other = importlib.import_module("spoil").start(servers, other, hook)
            await asyncio.to_thread(servers.wait, other)
        await asyncio.gather(_warm(oracle), _warm(other))
        node_secs = max(20, secs - (time.monotonic() - began) - 5)
        scripted = [
            asyncio.create_task(_javascript(servers, node, url, scripts, names, node_secs))
            for url in (oracle, other)
        ]
        limit = asyncio.Semaphore(AT_ONCE)
        verdicts = []

        async def both(known: Case) -> None:
            async with limit:
                left = secs - (time.monotonic() - began)
                if left < 3:
                    verdicts.append((known.name, known.about, [("", "", "not reached in time")], {}, {}))
                    return
                ours, theirs = await asyncio.gather(_one(known, oracle), _one(known, other))
                found = _verdict(known, ours, theirs)
            verdicts.append((known.name, known.about, found, ours, theirs))

        async def again(at: int, known: Case) -> None:
            """Run a case again: LangGraph's own server varies in a few cases, and a server may have been
            late."""
            _, about, _found, ours, theirs = verdicts[at]
            async with limit:
                if secs - (time.monotonic() - began) < 15:
                    return
                once, twice = await asyncio.gather(_one(known, oracle), _one(known, other))
            pairs = ((ours, twice), (once, theirs), (once, twice))
            best = next((pair for pair in pairs if not _verdict(known, *pair)), None)
            if best or "raised" in ours:
                best = best or (once, twice)
                verdicts[at] = known.name, about, _verdict(known, *best), *best

        await asyncio.gather(*map(both, chosen))
        by_name = {c.name: c for c in chosen}
        for _ in range(2):
            doubtful = [at for at, v in enumerate(verdicts) if v[2] and _by_chance(v[4])]
            doubtful = doubtful if len(doubtful) <= AT_ONCE else []
            doubtful += [at for at, v in enumerate(verdicts) if at not in doubtful and "raised" in v[3]]
            if doubtful:
                await asyncio.gather(*(again(at, by_name[verdicts[at][0]]) for at in doubtful))
        ours, theirs = await asyncio.gather(*scripted)
        doubtful = [n for n in ours if n in theirs and not _any_same([ours[n]], [theirs[n]])]
        failed = [n for n in doubtful if "raised" in ours[n]["saw"]]
        doubtful = [n for n in doubtful if n not in failed and _by_chance(theirs[n]["saw"])]
        doubtful = failed + (doubtful if len(doubtful) <= AT_ONCE else [])
        left = secs - (time.monotonic() - began)
        more: tuple[dict, dict] = ({}, {})
        if doubtful and left > 30:
            runs = (_javascript(servers, node, url, scripts, doubtful, left - 10) for url in (oracle, other))
            more = tuple(await asyncio.gather(*runs))
        for name, one in ours.items():
            mine = [side[name] for side in (ours, more[0]) if name in side]
            yours = [side[name] for side in (theirs, more[1]) if name in side] or [
                {"saw": {"raised": "it did not run"}}
            ]
            first, second = _any_same(mine, yours) or (mine[0], yours[0])
            first, second = normal.state(first["saw"]), normal.state(second["saw"])
            verdicts.append((name, one["about"], _verdict(None, first, second), first, second))
        return sorted(verdicts, key=lambda v: (v[1], v[0]))


async def _warm(url: str) -> None:
    """Do a first run, which makes a server import its modules."""
    at = At(url)
    try:
        await asyncio.wait_for(
            at.client.runs.wait(
                await at.thread(), "plain", input={"messages": [{"type": "human", "content": "say hi"}]}
            ),
            90,
        )
    except Exception as error:
        print(f"the first run: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)


def _by_chance(theirs: dict[str, Any]) -> bool:
    """Return whether a second try may have another result. A refusal stays a refusal."""
    return "raised" not in theirs or any(
        late in str(theirs["raised"]) for late in ("no end within", "not within")
    )


def _any_same(ours: list, theirs: list) -> tuple | None:
    pairs = ((one, two) for one in ours for two in theirs)
    return next((p for p in pairs if not _verdict(None, *(normal.state(one["saw"]) for one in p))), None)


async def _javascript(
    servers: Servers, node: Path, url: str, scripts: list[str], names: list[str], secs: float
) -> dict[str, Any]:
    if names:  # only the cases with one of these names
        scripts = [one for one in scripts if any(f'"{name}"' in Path(one).read_text() for name in names)]
    if not scripts:
        return {}
    process = servers.node(node, url, scripts, names, secs)
    try:
        out, _ = await asyncio.wait_for(asyncio.to_thread(process.communicate), secs + 5)
    except TimeoutError:
        process.kill()
        out = b""
    told = [json.loads(x) for x in out.decode().splitlines() if x.startswith("{")]
    if not told:
        raise RuntimeError(f"Node said nothing\n{_end_of(process.log)}")
    return {one["name"]: one for one in told if one["name"] != "-"}


def main(
    packages: list[str],
    names: list[str],
    paths: list[str],
    node: Path,
    *,
    secs: float,
    verbose: bool,
    combined: bool = False,
    record: Path | None = None,
) -> None:
    """Print a line for each case that differs; exit with 1 if there is one."""
    verdicts = asyncio.run(run(packages, names, paths, node, secs))
    differing = [v for v in verdicts if v[2]]
    if record is not None:
        same = {v[0]: v[3] for v in verdicts if not v[2]}
        record.write_text(json.dumps(same, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    for name, about, found, ours, theirs in verdicts:
        if verbose:
            print(f"{name} ({about}): {'same' if not found else compare.line(found, 99)}")
            print(f"    LangGraph: {json.dumps(ours, ensure_ascii=False)[:4000]}")
            if found:
                print(f"    gateway:   {json.dumps(theirs, ensure_ascii=False)[:4000]}")
        elif found and not combined:
            print(f"{name} ({about}): {compare.line(found)}")
    counts = f"{len(verdicts) - len(differing)} of {len(verdicts)} cases the same"
    if combined:
        told = "; ".join(f"{v[0]}: got {compare.line(v[2], 1)}" for v in differing)
        print(f"{told}; {counts}" if told else counts)
    else:
        print(counts + (f"; differing: {', '.join(v[0] for v in differing)}" if differing else ""))
    sys.stdout.flush()
    os._exit(1 if differing else 0)
