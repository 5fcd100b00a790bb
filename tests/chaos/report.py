"""One run's figures as a table, and what was found wrong."""

from __future__ import annotations

from statistics import median

from tests.chaos.plan import Kind
from tests.chaos.proxy import Mangled
from tests.chaos.tally import Recovery, Tally


def table(tally: Tally, mangled: Mangled) -> str:
    """Name and figure, line by line."""
    ends = ", ".join(f"{count} {name}" for name, count in sorted(tally.streams.items()))
    resets = ", ".join(f"{count} by attempt {number}" for number, count in sorted(tally.resets.items()))
    rows = [
        ("streams", f"{sum(tally.streams.values())}: {ends}"),
        *((kind.value, str(tally.faults[kind])) for kind in Kind),
        ("connections cut", str(tally.connections_cut)),
        ("publishes", f"{mangled.dropped} dropped, {mangled.doubled} doubled, {mangled.late} late"),
        ("readers", f"{tally.readers}, at most {tally.readers_peak} at once, {tally.bytes:,} bytes"),
        ("their connections", f"{tally.connections}, of which {tally.resumes} resumed, {tally.away} left"),
        ("resets", f"{sum(tally.resets.values())}: {resets or 'none'}"),
        ("log_lost told", str(tally.log_lost)),
        ("202s that vanished", str(tally.streams["vanished"])),
        (
            "POSTs",
            f"{tally.refused} refused with 503, {tally.unanswered} unanswered, {tally.doubled} doubled",
        ),
        ("cancels", str(tally.cancels)),
        *_recoveries(tally.recoveries),
        ("findings", str(len(tally.findings))),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _recoveries(found: list[Recovery]) -> list[tuple[str, str]]:
    """Of streams whose worker was killed: among all faults, and where no other fault fell into the time."""
    alone = [recovery for recovery in found if recovery.alone]
    return [
        ("recovery: next attempt", _times([r.attempt for r in found])),
        ("  no other fault near", _times([r.attempt for r in alone])),
        ("recovery: next event", _times([r.event for r in found])),
        ("  no other fault near", _times([r.event for r in alone])),
    ]


def _times(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    return f"median {median(seconds):.2f} s, worst {max(seconds):.2f} s, of {len(seconds)}"
