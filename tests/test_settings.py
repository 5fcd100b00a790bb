"""The environment is read once, checked, and never quoted."""

from __future__ import annotations

import pytest

from gateway.settings import Settings


def test_nothing_need_be_set() -> None:
    settings = Settings.from_env({})
    assert (settings.port, settings.lease, settings.redis_url) == (7071, 15.0, "")
    assert not settings.model_is_configured


def test_names_and_numbers_are_read() -> None:
    settings = Settings.from_env(
        {"PORT": "0", "GATEWAY_LEASE_SECONDS": "2.5", "GATEWAY_MODEL": "m", "HOST": " "}
    )
    assert (settings.port, settings.lease, settings.model, settings.host) == (0, 2.5, "m", "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "x"),
        ("PORT", "-1"),
        ("PORT", "99999"),
        ("REDIS_URL", "foo"),
        ("GATEWAY_RETENTION_SECONDS", "1e300"),
        ("GATEWAY_LEASE_SECONDS", "0.0001"),
        ("GATEWAY_LEASE_SECONDS", "0"),
        ("GATEWAY_LEASE_SECONDS", "nan"),
        ("GATEWAY_RETENTION_SECONDS", "inf"),
        ("GATEWAY_WORKER_CONCURRENCY", "0"),
        ("GATEWAY_MAX_ATTEMPTS", "0"),
        ("GATEWAY_MAX_FAILURES", "0"),
        ("GATEWAY_QUEUE", "carrier-pigeon"),
        ("GATEWAY_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_told_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        Settings.from_env({name: value})
    assert value not in str(caught.value).replace(name, "") or value in ("0", "-1", "x")


def test_a_key_is_not_shown() -> None:
    assert "secret-canary" not in repr(Settings.from_env({"OPENAI_API_KEY": "secret-canary"}))
