"""What a run that found something leaves in a directory, since its interleaving does not come twice."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.chaos.report import table
from tests.chaos.run import Outcome


def keep(outcome: Outcome, seed: int, command: str) -> Path:
    """Write findings, figures, processes' logs, and the logs of the streams in question; where to.

    The command starts a run with the same faults at the same moments.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"holdfast-chaos-{seed}-"))
    tally = outcome.tally
    findings = "\n\n".join(tally.findings)
    figures = table(tally, outcome.mangled)
    (folder / "findings.txt").write_text(f"{command}\n\n{findings}\n\n{figures}\n", encoding="utf-8")
    (folder / "story.txt").write_text(outcome.story, encoding="utf-8")
    (folder / "tails.txt").write_text(outcome.tails, encoding="utf-8")
    for stream, log in tally.suspects.items():
        (folder / f"{stream}.log").write_bytes(log)
    return folder
