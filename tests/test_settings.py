"""The environment is read once, checked, and never quoted."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.settings import Settings, read_env_file

ROOT = Path(__file__).resolve().parents[1]


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
        ("GATEWAY_THREAD_SECONDS", "0"),
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
        ("GATEWAY_LOG_FORMAT", "xml"),
        ("GATEWAY_METRICS", "statsd"),
        ("GATEWAY_METRICS_KEY", "short"),
        ("GATEWAY_WORKER_PORT", "no port"),
        ("GATEWAY_WORKER_PORT", "65536"),
    ],
)
def test_a_wrong_value_is_told_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        Settings.from_env({name: value})
    assert value not in str(caught.value).replace(name, "") or value in ("0", "-1", "x")


def test_a_key_is_not_shown() -> None:
    assert "secret-canary" not in repr(Settings.from_env({"OPENAI_API_KEY": "secret-canary"}))


def test_fault_79_no_secret_is_shown_in_any_field() -> None:
    """Also of settings to come: each text field once holds a URL with a password and a signature."""
    shown = Settings()
    for item in fields(Settings):
        if not isinstance(item.default, str):
            continue
        for canary in ("canary", "can/ary", "c@nary", "can\nary"):
            object.__setattr__(shown, item.name, f"https://user:{canary}@host:1/path?sig={canary}&a=//b")
            assert canary not in repr(shown), item.name
            assert repr(canary)[1:-1] not in repr(shown), item.name
        object.__setattr__(shown, item.name, "plain-canary")
        name = item.metadata["env"]
        secret = re.search("_KEYS?$|SECRET|PASSWORD|CONNECTION_STRING|AzureWebJobsStorage$|REDIS_URL$", name)
        assert ("plain-canary" in repr(shown)) is not bool(secret), name
        object.__setattr__(shown, item.name, "")
    assert "host='127.0.0.1'" in repr(Settings())
    assert "host/0" not in repr(Settings(redis_url="redis://:canary@host/0"))


def test_metrics_ask_for_a_key_wherever_callers_are_told_apart() -> None:
    shown = {"GATEWAY_METRICS": "prometheus"}
    asking = {**shown, "GATEWAY_AUTH": "keys", "GATEWAY_KEYS_FILE": "keys", "GATEWAY_TOKEN_KEYS": "t" * 32}
    assert Settings.from_env(shown).metrics_key == ""
    with pytest.raises(ValueError, match="GATEWAY_METRICS_KEY"):
        Settings.from_env(asking)
    settings = Settings.from_env({**asking, "GATEWAY_METRICS_KEY": "secret-canary" + "k" * 32})
    assert "secret-canary" not in repr(settings)


def test_on_azure_functions_a_run_and_its_last_stage_end_before_the_platform_ends_them() -> None:
    source = (ROOT / "holdfast_gateway/registered.py").read_text()  # importing it would take the extension
    [budget] = re.findall(r"^RUN_BUDGET_SECONDS = ([0-9.]+)", source, re.MULTILINE)
    hours, minutes, seconds = json.loads((ROOT / "host.json").read_text())["functionTimeout"].split(":")
    limit = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    assert float(budget) + Settings().stage_limit < limit - 30


def test_a_hosts_own_default_gives_way_to_the_environment() -> None:
    assert Settings.from_env({}, run_budget=600.0).run_budget == 600
    assert Settings.from_env({"GATEWAY_RUN_BUDGET_SECONDS": "0"}, run_budget=600.0).run_budget == 0


def test_a_file_of_settings_gives_what_the_environment_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("# a comment\n\nexport A_FILES='1 2'\nA_SET=file\n A_PLAIN = a=b # c \nA_EMPTY=\n")
    for name in ("A_FILES", "A_PLAIN", "A_EMPTY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("A_SET", "environment")
    read_env_file(file)
    found = {name: os.environ.get(name) for name in ("A_FILES", "A_SET", "A_PLAIN", "A_EMPTY")}
    assert found == {"A_FILES": "1 2", "A_SET": "environment", "A_PLAIN": "a=b # c", "A_EMPTY": ""}
    read_env_file(tmp_path / "none")


@pytest.mark.parametrize("line", ["canary", "=canary", "1A=canary", "A B=canary", "A=canary\0"])
def test_a_wrong_line_of_it_is_named_without_its_value(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=r"^\.env, line 2: not NAME=value$"):
        read_env_file(tmp_path / ".env")
