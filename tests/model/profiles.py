"""The duration of the model test. The long run is `tests/test_log_model.py` under
`--hypothesis-profile=long`.

This module is loaded as a plugin (`-p tests.model.profiles`), because Hypothesis looks for the profile before
any test module is imported.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

CHECKS = list(HealthCheck)  # they check speed and shared fixtures, which are not the subject
PHASES = [phase for phase in Phase if phase is not Phase.explain]  # the explain phase takes minutes here

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
    """Return the long profile if it was requested, else the ordinary profile."""
    long = settings.get_current_profile_name() == "long"
    return settings.get_profile("long" if long else "model")
