"""The platform's sign-in headers are trusted only if the platform says that its sign-in is active.

(Fault 71.)
"""

from __future__ import annotations

import pytest

from gateway.settings import Settings
from tests.callers import TOKEN_KEYS
from tests.support.processes import REPOSITORY
from tests.test_main import refusal

EASY = {
    "GATEWAY_AUTH": "easyauth",
    "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0],
    "REDIS_URL": "redis://127.0.0.1:1",
}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "10.0.0.1"])
@pytest.mark.parametrize("said", ["", "False", "false", "0", "yes", "1", "True x"])
def test_fault_71_easyauth_is_refused_for_every_host(host: str, said: str) -> None:
    with pytest.raises(ValueError, match="GATEWAY_AUTH=easyauth needs WEBSITE_AUTH_ENABLED=True") as told:
        Settings.from_env({**EASY, "HOST": host, "WEBSITE_AUTH_ENABLED": said})
    assert "Switch Authentication on, or set GATEWAY_AUTH to keys or jwt" in str(told.value)


@pytest.mark.parametrize("said", ["True", "true", " TRUE "])
def test_where_the_platform_says_so_it_is_taken(said: str) -> None:
    assert Settings.from_env({**EASY, "HOST": "0.0.0.0", "WEBSITE_AUTH_ENABLED": said}).auth == "easyauth"


@pytest.mark.parametrize("auth", ["", "none"])
def test_who_does_not_ask_for_it_needs_no_word_of_the_platform(auth: str) -> None:
    assert Settings.from_env({"GATEWAY_AUTH": auth, "WEBSITE_AUTH_ENABLED": "False"}).is_open


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_fault_71_a_process_does_not_start(host: str) -> None:
    said = await refusal("web", {**EASY, "HOST": host, "PORT": "0"})
    assert "WEBSITE_AUTH_ENABLED" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_fault_71_nor_does_the_functions_app(monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    storage = {"GATEWAY_QUEUE": "azure-storage", "AzureWebJobsStorage": "UseDevelopmentStorage=true"}
    for name, value in {**EASY, **storage}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WEBSITE_AUTH_ENABLED", raising=False)
    with pytest.raises(ValueError, match="WEBSITE_AUTH_ENABLED"):
        runpy.run_path(str(REPOSITORY / "function_app.py"))
