"""One run's figures as a table, and what was found wrong."""

from __future__ import annotations

from statistics import median

from tests.chaos.plan import Kind
from tests.chaos.proxy import Mangled
from tests.chaos.tally import Recovery, Tally


def table(tally: Tally, mangled: Mangled) -> str:
    """Return lines of names and figures."""
    ends = ", ".join(f"{count} {name}" for name, count in sorted(tally.streams.items()))
    resets = ", ".join(f"{count} by attempt {number}" for number, count in sorted(tally.resets.items()))
    rows = [
        ("streams", f"{sum(tally.streams.values())}: {ends}"),
        *((kind.value, str(tally.faults[kind])) for kind in Kind),
        ("connections cut", str(tally.connections_cut)),
        ("the model's answers", f"{tally.answers_cut} cut, {tally.answers_refused} refused"),
        ("publishes", f"{mangled.dropped} dropped, {mangled.doubled} doubled, {mangled.late} late"),
        ("readers", f"{tally.readers}, at most {tally.readers_peak} at once, {tally.bytes_read:,} bytes"),
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


def markdown(seed: int, tally: Tally) -> str:
    """Return this run's column for the table of `docs/reliability.md`, with the names of the rows."""
    faults, found = tally.faults, tally.recoveries
    rows = [
        ("", f"SEED={seed}"),
        ("---", "---"),
        ("streams", f"{sum(tally.streams.values()):,}"),
        ("worker kills", str(faults[Kind.KILL_WORKER])),
        ("Redis kills and restarts", str(faults[Kind.RESTART_REDIS])),
        ("Redis kills and promotions of the replica", str(faults[Kind.PROMOTE])),
        ("planned failovers", str(faults[Kind.HAND_OVER])),
        ("pauses past the lease", str(faults[Kind.PAUSE_WORKER])),
        ("cuts", str(faults[Kind.CUT])),
        ("answers that the model cut, and refused", f"{tally.answers_cut}, {tally.answers_refused}"),
        ("readers", f"{tally.readers:,}"),
        ("connections resumed", f"{tally.resumes:,}"),
        ("`reset`s", str(sum(tally.resets.values()))),
        ("`log_lost` told", str(tally.log_lost)),
        ("202s that vanished", str(tally.streams["vanished"])),
        ("from a kill to the next attempt", _shortly([r.attempt for r in found])),
        ("the same, no other fault near", _shortly([r.attempt for r in found if r.alone])),
        ("findings", str(len(tally.findings))),
    ]
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def _recoveries(found: list[Recovery]) -> list[tuple[str, str]]:
    """Return the recovery times of streams whose worker was killed: for all, and for those without another
    fault at that time."""
    alone = [recovery for recovery in found if recovery.alone]
    return [
        ("recovery: next attempt", _times([r.attempt for r in found])),
        ("  no other fault near", _times([r.attempt for r in alone])),
        ("recovery: next event", _times([r.event for r in found])),
        ("  no other fault near", _times([r.event for r in alone])),
    ]


def _times(seconds: list[float]) -> str:
    return f"{_shortly(seconds)}, of {len(seconds)}" if seconds else "none"


def _shortly(seconds: list[float]) -> str:
    return f"median {median(seconds):.2f} s, worst {max(seconds):.2f} s" if seconds else "none"
