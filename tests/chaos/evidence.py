"""Write the findings of a run into a directory, because the same interleaving does not happen twice."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.chaos.report import table
from tests.chaos.run import Outcome


def keep(outcome: Outcome, seed: int, command: str) -> Path:
    """Write findings, figures, logs of the processes, and logs of the affected streams; return the directory.

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
