"""The comparison, without the cases that need more packages than the project has. `make chains` runs all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.processes import AUTHORITY, REPOSITORY

SECONDS = 900  # a hang; the run uses some 40 s of processor time in several processes


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 20)
def test_chains_say_by_the_gateway_what_they_say_by_themselves() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.chains", "--quick"],
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "SSL_CERT_FILE": str(AUTHORITY),  # saves time: hundreds of model clients, none uses TLS
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " chains the same; differing:" in run.stdout
    # at least this number was compared
    assert int(run.stdout.splitlines()[-1].partition(" of ")[2].split()[0]) >= 155
