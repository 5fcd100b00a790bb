"""The documentation: each link has a target, the site has each page, and each command has its line."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest

from gateway.cli.commands import parser
from gateway.hosts.asgi import ROUTES
from gateway.settings import Settings
from gateway.webhooks.asked import FIELD

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)
FENCED = re.compile(r"^ *(```|~~~).*?^ *\1\s*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
IN_NAV = re.compile(r"^ +- [^:]+: ([a-z/-]+\.md)$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, made in the way of GitHub and of the site."""
    found: dict[str, int] = {}
    for heading in HEADING.findall(FENCED.sub("", page.read_text())):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if not n else f"{slug}-{n}" for slug, most in found.items() for n in range(most + 1)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(SPAN.sub("", FENCED.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", link):
            continue  # A link to another site: tests have no network.
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        if not target.exists():
            wrong.append(f"{link}: there is no such file")
        elif anchor and target.suffix == ".md" and unquote(anchor) not in anchors(target):
            wrong.append(f"{link}: no such heading")
    assert wrong == []


def test_the_site_has_each_page_once() -> None:
    listed = IN_NAV.findall((ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(
        str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")
    )


def test_each_command_has_its_line() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    told = re.findall(r"^    ([a-z]+)(?: \([a-z]+\))?(?:  |$)", parser().format_help(), re.MULTILINE)
    assert len(told) > 10
    assert [command for command in told if f"`holdfast {command}" not in page] == []


def test_what_an_application_asks_for_its_users_is_answered_by_what_there_is() -> None:
    """Check each row of the table.

    A row names a request, a field, a setting or a command of this release, and the page that describes it.
    """
    part = (ROOT / "docs/faq.md").read_text().partition("## What an application asks for its users")[2]
    rows = re.findall(r"^\| (?!can a)([a-z].*?) \| (.*?) \| (.*) \|$", part, re.MULTILINE)
    assert [answer for _, answer, _ in rows] == ["yes"] * 6
    paths = {f"{method} {path}" for method, path, _ in ROUTES}
    settings = {item.metadata["env"] for item in fields(Settings)}
    commands = {
        f"holdfast {word}" for word in re.findall(r"^    ([a-z]+)", parser().format_help(), re.MULTILINE)
    }
    known = paths | settings | commands | {FIELD}
    for asked, _, told in rows:
        named = [re.sub(r"\?.*| --.*", "", span.strip("`")) for span in SPAN.findall(told)]
        assert named, asked
        assert set(named) <= known, asked
        assert LINK.search(told), asked
