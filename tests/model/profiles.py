"""How long the model runs; the long run is `tests/test_log_model.py` under `--hypothesis-profile=long`.

Loaded as a plugin (`-p tests.model.profiles`), because Hypothesis looks for the profile before any test
module is imported.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

CHECKS = list(HealthCheck)  # each is about speed or about a shared fixture, and neither is what is tested
PHASES = [phase for phase in Phase if phase is not Phase.explain]  # to explain a failure takes minutes here

settings.register_profile(
    "long",
    max_examples=1500,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=CHECKS,
    phases=PHASES,
)
settings.register_profile(
    "model",
    max_examples=90,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=CHECKS,
    phases=PHASES,
)


def chosen() -> settings:
    """The long profile when it was asked for, else the ordinary one."""
    long = settings.get_current_profile_name() == "long"
    return settings.get_profile("long" if long else "model")
