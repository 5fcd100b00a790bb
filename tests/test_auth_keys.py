"""API keys, on both hosts: which callers are accepted, and how a key is issued and revoked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.datastructures import Headers

from gateway.callers import auth
from gateway.protocol.errors import AuthUnavailable, Unauthorized
from gateway.runtime import reread
from gateway.settings import Settings
from tests.callers import ALICE, ALICE_TOO, BOB, CANARY, KEYS, Guarded, by_key, keys_file
from tests.hosts import JSON, NOBODY, until
from tests.support.model_server import script
from tests.support.processes import GatewayProcess
from tests.test_main import refusal

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = {"GATEWAY_TOKEN_KEYS": "k" * 32, "REDIS_URL": "redis://127.0.0.1:1"}
NOT_JSON = b"{ this would be 400"
WRONG: dict[str, list[tuple[str, bytes]]] = {
    "missing": [],
    "unknown": [("authorization", b"Bearer hf_unknown")],
    "unknown X-API-Key": [("x-api-key", b"hf_unknown")],
    "empty": [("authorization", b"")],
    "no word": [("authorization", b"Bearer")],
    "basic": [("authorization", b"Basic " + ALICE.encode())],
    "without Bearer": [("authorization", ALICE.encode())],
    "two words": [("authorization", b"Bearer " + ALICE.encode() + b" x")],
    "twice": [("authorization", b"Bearer " + ALICE.encode())] * 2,
    "two callers": [("authorization", b"Bearer " + key.encode()) for key in (ALICE, BOB)],
    "two X-API-Keys": [("x-api-key", key.encode()) for key in (ALICE, BOB)],
    "not ASCII": [("authorization", "Bearer ключ".encode())],
    "not UTF-8": [("x-api-key", b"\xff\xfe")],
    "longer than a key": [("authorization", b"Bearer " + b"k" * 20_000)],
    "longer X-API-Key": [("x-api-key", b"k" * 20_000)],
    "a prefix": [("authorization", b"Bearer " + ALICE[:-1].encode())],
    "other case": [("authorization", b"Bearer " + ALICE.upper().encode())],
    "the platform's header": [("x-ms-client-principal-id", b"alice"), ("x-ms-client-principal-idp", b"aad")],
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
async def test_who_is_not_known_is_401_before_the_body_is_looked_at(
    guarded: Guarded, given: list[tuple[str, bytes]]
) -> None:
    shown = [(name.encode(), value) for name, value in given]
    answers = [
        await guarded.http.post(path, content=NOT_JSON, headers=[(b"content-type", b"text/plain"), *shown])
        for path in ("/stream", "/api/http_trigger", f"/stream/{NOBODY}/token")
    ]
    answers += [
        await guarded.http.request(method, f"/stream/{NOBODY}", headers=shown) for method in ("GET", "DELETE")
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["code"] == "unauthorized"
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize(
    "headers", [by_key(ALICE), {"x-api-key": ALICE}, {"authorization": f"bEARER  {ALICE}"}]
)
async def test_a_key_is_let_in_by_either_header(guarded: Guarded, headers: dict[str, str]) -> None:
    body = {"user": script(["a"])}
    answer = await guarded.http.post("/stream", json=body, headers=headers)
    assert answer.status_code == 202
    assert (
        await guarded.http.get(answer.headers["location"], headers={**JSON, **headers})
    ).status_code == 200


async def test_two_keys_of_one_name_are_one_owner(guarded: Guarded) -> None:
    where = await guarded.start(ALICE)
    mine, too, others = [
        await guarded.http.get(where, headers={**JSON, **by_key(key)}) for key in (ALICE, ALICE_TOO, BOB)
    ]
    assert (mine.status_code, too.status_code, others.status_code) == (200, 200, 404)


async def test_health_and_the_page_ask_for_no_key(guarded: Guarded) -> None:
    assert (await guarded.http.get("/health")).status_code == 200
    assert (await guarded.http.get("/")).status_code == 200


@pytest.fixture
def changing(key_file: Path) -> Iterator[Path]:
    """Yield the hosts' file of keys, and restore its content at the end."""
    yield key_file
    replace(key_file, keys_file(*KEYS))


def replace(path: Path, text: str) -> None:
    """Replace the file in one step, as a careful operator does: a process may read the file at any moment."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


async def known(host: Guarded, key: str) -> bool:
    answer = await host.http.get(f"/stream/{NOBODY}", headers=by_key(key))
    assert answer.status_code in (401, 404)
    return answer.status_code == 404


async def test_keys_come_and_go_while_it_runs(guarded: Guarded, changing: Path) -> None:
    carol = f"hf_{CANARY}-carol"
    assert not await known(guarded, carol)
    replace(changing, keys_file((ALICE, "alice"), (carol, "carol")))
    await until(lambda: known(guarded, carol), lambda let_in: let_in)
    assert not await known(guarded, BOB)
    assert await known(guarded, ALICE)

    before = guarded.log().count("the file of keys is wrong")
    replace(changing, f"alice {CANARY}\n")

    async def told() -> bool:
        assert await known(guarded, carol)
        return guarded.log().count("the file of keys is wrong") > before

    await until(told, lambda now: now)
    assert not await known(guarded, BOB)
    assert CANARY not in guarded.log()
    replace(changing, keys_file(*KEYS))
    await until(lambda: known(guarded, BOB), lambda let_in: let_in)
    assert not await known(guarded, carol)


@pytest.mark.parametrize(
    "text",
    [
        f"alice {CANARY}",
        f"alice {'A' * 64}",
        f"{CANARY}\u00e9 {'a' * 64}",
        f"alice {'a' * 64} {CANARY}",
        f"{CANARY}",
        f"{'a' * 65} {'a' * 64}",
    ],
)
async def test_a_wrong_file_is_refused_by_its_line_and_without_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(keys_file((ALICE, "alice")) + text)
    with pytest.raises(ValueError, match=r"keys, line 4: not `name sha256-hex`") as told:
        auth.Keys(path)
    assert CANARY not in str(told.value)


async def test_a_file_that_goes_away_or_is_no_text_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reread, "LOOK_SECONDS", -1)
    caplog.set_level(logging.INFO)
    path = tmp_path / "keys"
    path.write_text(keys_file((ALICE, "alice")))
    keys = auth.Keys(path)
    for spoil in (lambda: path.write_bytes(b"\xff" + CANARY.encode()), path.unlink):
        caplog.clear()
        spoil()
        assert await keys.owner(Headers(by_key(ALICE))) == "key:alice"
        assert "the file of keys is wrong" in caplog.text
        assert CANARY not in caplog.text
    path.write_text(keys_file((BOB, "bob")))
    assert await keys.owner(Headers(by_key(BOB))) == "key:bob"
    with pytest.raises(Unauthorized):
        await keys.owner(Headers(by_key(ALICE)))


@pytest.mark.parametrize("how", ["missing", "a wrong line", "no text", "a folder"])
async def test_fault_75_a_wrong_file_lets_its_keys_hold_for_a_time_and_then_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    clock = 1000.0
    for module in ("gateway.callers.auth", "gateway.runtime.reread"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: clock))
    caplog.set_level(logging.INFO)
    path = tmp_path / "keys"
    path.write_text(keys_file((ALICE, "alice"), (BOB, "bob")))
    keys = auth.Keys(path)
    spoil(path, how)
    caplog.clear()

    def told() -> int:
        return sum(record.levelno == logging.ERROR for record in caplog.records)

    began, times = clock, []
    while clock < began + auth.KEYS_HELD_SECONDS:
        clock += 2
        before = told()
        assert await keys.owner(Headers(by_key(BOB))) == "key:bob"
        if told() > before:
            times.append(clock)
    assert times[0] == began + 2  # The first message is logged at once,
    assert 4 <= len(times) <= 6  # and later ones once a minute.
    assert "s more: the file of keys is wrong" in caplog.text
    clock += 3
    for key in (ALICE, BOB, "hf_unknown") * 20:
        with pytest.raises(AuthUnavailable):
            await keys.owner(Headers(by_key(key)))
    clock += reread.TOLD_SECONDS
    with pytest.raises(AuthUnavailable):
        await keys.owner(Headers(by_key(ALICE)))
    assert "nobody is let in" in caplog.text
    assert told() <= len(times) + 2
    assert CANARY not in caplog.text
    if path.is_dir():
        path.rmdir()
    clock += 2
    path.write_text(keys_file((ALICE, "alice")))
    assert await keys.owner(Headers(by_key(ALICE))) == "key:alice"
    assert "the file of keys is right again" in caplog.text
    with pytest.raises(Unauthorized):
        await keys.owner(Headers(by_key(BOB)))


def spoil(path: Path, how: str) -> None:
    """Make a file of keys wrong. The wrong file also leaves out Bob's key, which revokes that key."""
    if how in ("missing", "a folder"):
        path.unlink()
    match how:
        case "a folder":
            path.mkdir()
        case "a wrong line":
            path.write_text(keys_file((ALICE, "alice")) + f"carol {CANARY}\n")
        case "no text":
            path.write_bytes(b"\xff" + CANARY.encode())


async def test_fault_75_a_file_that_comes_back_as_it_was_is_right_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    for module in ("gateway.callers.auth", "gateway.runtime.reread"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: clock))
    path, hidden = tmp_path / "keys", tmp_path / "hidden"
    path.write_text(keys_file((ALICE, "alice")))
    keys = auth.Keys(path)
    path.rename(hidden)
    clock += 2
    assert await keys.owner(Headers(by_key(ALICE))) == "key:alice"
    clock += auth.KEYS_HELD_SECONDS + 1
    with pytest.raises(AuthUnavailable):
        await keys.owner(Headers(by_key(ALICE)))
    hidden.rename(path)
    clock += 2
    assert await keys.owner(Headers(by_key(ALICE))) == "key:alice"


async def test_without_its_file_of_keys_it_does_not_start(tmp_path: Path) -> None:
    absent, broken = tmp_path / "absent", tmp_path / "broken"
    broken.write_text(CANARY)
    for path, sentence in ((absent, "GATEWAY_KEYS_FILE"), (broken, "broken, line 1: not `name sha256-hex`")):
        said = await refusal("web", {**SECRET, "GATEWAY_AUTH": "keys", "GATEWAY_KEYS_FILE": str(path)})
        assert sentence in said
        assert CANARY not in said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"HOST": "0.0.0.0"}, "GATEWAY_AUTH"),
        ({"HOST": "0.0.0.0", "GATEWAY_AUTH": "none"}, "GATEWAY_OPEN_TO_ALL"),
        ({"HOST": "0.0.0.0", "GATEWAY_OPEN_TO_ALL": "yes"}, "GATEWAY_AUTH"),
        ({"HOST": "0.0.0.0", "GATEWAY_AUTH": "none", "GATEWAY_OPEN_TO_ALL": "1"}, "GATEWAY_OPEN_TO_ALL"),
        ({"HOST": "::", "GATEWAY_AUTH": "none"}, "GATEWAY_OPEN_TO_ALL"),
    ],
)
async def test_it_does_not_serve_everybody_unless_told_twice(settings: dict[str, str], sentence: str) -> None:
    said = await refusal("web", {**SECRET, **settings})
    assert "can be reached by others" in said
    assert sentence in said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"GATEWAY_AUTH": "canary"}, "GATEWAY_AUTH must be none, keys, easyauth or jwt"),
        ({"GATEWAY_AUTH": "keys"}, "GATEWAY_AUTH=keys needs GATEWAY_KEYS_FILE"),
        ({"GATEWAY_AUTH": "jwt"}, "GATEWAY_AUTH=jwt needs GATEWAY_JWT_ISSUER and GATEWAY_JWT_AUDIENCE"),
        (
            {"GATEWAY_AUTH": "easyauth", "WEBSITE_AUTH_ENABLED": "True", "GATEWAY_TOKEN_KEYS": ""},
            "GATEWAY_AUTH=easyauth needs GATEWAY_TOKEN_KEYS",
        ),
        ({"GATEWAY_TOKEN_KEYS": "canary"}, "GATEWAY_TOKEN_KEYS: each must have at least 32 characters"),
        ({"GATEWAY_TOKEN_SECONDS": "0.5"}, "GATEWAY_TOKEN_SECONDS must be 0, or 1 to 90000"),
        ({"GATEWAY_TOKEN_SECONDS": "90001"}, "GATEWAY_TOKEN_SECONDS must be 0, or 1 to 90000"),
        ({"GATEWAY_CORS_ORIGINS": "*"}, "GATEWAY_CORS_ORIGINS"),
        ({"GATEWAY_CORS_ORIGINS": "https://canary.example/"}, "GATEWAY_CORS_ORIGINS"),
        ({"GATEWAY_CORS_ORIGINS": "null"}, "GATEWAY_CORS_ORIGINS"),
    ],
)
async def test_a_setting_that_would_let_in_too_many_is_refused(
    settings: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as told:
        Settings.from_env({**SECRET, **settings})
    assert "canary" not in str(told.value)


async def test_told_twice_it_serves_everybody(redis_url: str) -> None:
    settings = {"HOST": "0.0.0.0", "GATEWAY_AUTH": "none", "GATEWAY_OPEN_TO_ALL": "yes"}
    async with asyncio.timeout(60), GatewayProcess("web", {"REDIS_URL": redis_url, **settings}) as process:
        assert process.url.startswith("http://0.0.0.0:")
