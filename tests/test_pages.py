"""The page's files on both hosts: an exact list, kept by browsers, and bound to what is their own."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from gateway.process import routes_of
from gateway.settings import Settings
from gateway.web.pages import DOCS, PAGE, PARTS
from tests.hosts import Host
from tests.support.processes import REPOSITORY
from tests.support.programs import NODE

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

WEB = REPOSITORY / "web"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
VENDORED = {
    "marked.js": "marked/lib/marked.esm.js",
    "marked.LICENSE": "marked/LICENSE",
    "purify.js": "dompurify/dist/purify.es.mjs",
    "purify.LICENSE": "dompurify/LICENSE",
}


def policy(answer: httpx.Response) -> dict[str, str]:
    return dict(item.split(" ", 1) for item in answer.headers["content-security-policy"].split("; "))


async def test_the_page_and_each_of_its_parts_is_given_as_it_stands(host: Host) -> None:
    for path, name in {"/": PAGE, "/docs": DOCS, **{f"/web/{part}": part for part in PARTS}}.items():
        answer = await host.http.get(path)
        assert answer.status_code == 200, path
        assert answer.content == (WEB / name).read_bytes()
        assert answer.headers["content-type"].startswith(KINDS.get(Path(name).suffix, "text/html"))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert policy(answer)["default-src"] == "'none'"


async def test_a_part_is_sent_again_only_when_it_is_another(host: Host) -> None:
    first = await host.http.get("/web/page.js")
    etag = first.headers["etag"]
    assert etag != (await host.http.get("/web/turn.js")).headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (etag, f'"other", W/{etag}', "*"):
        again = await host.http.get("/web/page.js", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for other in ('"other"', etag.strip('"'), ""):
        assert (await host.http.get("/web/page.js", headers={"if-none-match": other})).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "index.html",
        "client.d.ts",
        "vendor/marked.LICENSE",
        "marked.js",
        "vendor/page.js",
        "PAGE.JS",
        "..%2fREADME.md",
        "%2e%2e%2fgateway%2fpages.py",
        "vendor/..%2fpage.js",
        "page.js%00",
    ],
)
async def test_nothing_else_is_given(host: Host, name: str) -> None:
    answer = await host.http.get(f"/web/{name}")
    assert answer.status_code == 404


async def test_the_page_may_run_its_own_script_and_nothing_else(host: Host) -> None:
    """That it works so in a browser, without a complaint, is for `test_page.py` to see."""
    answer = await host.http.get("/")
    said = policy(answer)
    for name in ("script-src", "style-src", "connect-src", "img-src"):
        assert said[name] == "'self'"
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert said[name] == "'none'"
    assert (said["require-trusted-types-for"], said["trusted-types"]) == ("'script'", "dompurify")
    assert not re.search(r"unsafe|\*|https?:|data:", answer.headers["content-security-policy"])
    assert not re.search(r"<style|<script>|\son[a-z]+=|\sstyle=|javascript:", answer.text)


async def test_every_part_is_listed_and_every_one_listed_is_there() -> None:
    there = {str(path.relative_to(WEB)) for path in WEB.rglob("*") if path.is_file()}
    assert {name for name in there if not name.endswith((".LICENSE", ".d.ts"))} == PARTS | {PAGE, DOCS}
    pages = (WEB / PAGE).read_text() + (WEB / DOCS).read_text()
    asked = set(re.findall(r'(?:href|src)="web/([^"]+)"', pages))
    for name in PARTS:
        if not name.startswith("vendor/"):
            asked |= set(re.findall(r'from "\./([^"]+)"', (WEB / name).read_text()))
    assert asked == PARTS


@pytest.mark.parametrize(("ours", "theirs"), VENDORED.items())
async def test_what_others_wrote_is_as_they_wrote_it(ours: str, theirs: str) -> None:
    assert (WEB / "vendor" / ours).read_bytes() == (NODE / "node_modules" / theirs).read_bytes()


async def test_only_what_is_listed_is_vendored() -> None:
    assert {path.name for path in (WEB / "vendor").iterdir()} == set(VENDORED)


async def test_the_pages_own_script_asks_nobody_else_and_makes_no_markup_of_strings() -> None:
    for name in PARTS - {"vendor/marked.js", "vendor/purify.js", "icon.svg"}:
        text = (WEB / name).read_text()
        assert not re.findall(r"https?://(?!127\.0\.0\.1)", text), name
        assert not re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval|Function\(", text
        )


@pytest.mark.parametrize(
    ("mode", "settings", "served"),
    [
        ("all", Settings(), True),
        ("all", Settings(host="::1"), True),
        ("web", Settings(), False),
        ("all", Settings(host="0.0.0.0"), False),
        ("all", Settings(auth="keys", keys_file="/nobody", token_keys="x" * 32), False),
    ],
)
async def test_a_worker_is_killed_on_ones_own_machine_alone(
    mode: str, settings: Settings, served: bool
) -> None:
    paths = {path for _, path, _ in routes_of(mode, settings)}
    assert ("/dev/kill-worker" in paths) == served
