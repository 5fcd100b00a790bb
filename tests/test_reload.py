"""`python -m gateway all` in development takes the author's modules anew when one of their files changes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import workers.development.reload
from gateway.process import Host, _servable
from gateway.settings import Settings
from tests.support.jobs import BOUND_SECONDS, eventually
from workers.chains import registry
from workers.chains.registry import Registry
from workers.development import watched
from workers.development.reload import Reload
from workers.development.watched import Watch

MODULE = "reloaded_chains"
SECOND = 1_700_000_000 * 10**9  # in nanoseconds
SETTINGS = Settings(chains=MODULE, development="yes")
CHAINS = """
from holdfast_gateway import chain
from reloaded_words import WORDS


@chain("say")
def say(settings):
    return lambda given: WORDS
"""


class Author:
    """Somebody who writes chains in a folder, which is the current one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(f"{MODULE}.py", CHAINS)
        self.write("reloaded_words.py", 'WORDS = "one two"\n')

    def write(self, name: str, text: str, at_ns: int | None = None) -> None:
        """As an editor does it: another file takes the place of the old one."""
        new = self.folder / f"{name}.new"
        new.write_text(text)
        if at_ns is not None:
            os.utime(new, ns=(at_ns, at_ns))
        new.rename(self.folder / name)


@pytest.fixture
def author(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Author]:
    """What is imported and marked meanwhile is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(workers.development.reload, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(workers.development.reload, "CALM_SECONDS", 0.01)
    Registry(Settings())
    monkeypatch.setattr(registry, "_marked", dict(registry._marked))
    before = set(sys.modules)
    yield Author(tmp_path)
    for name in set(sys.modules) - before:
        if str(vars(sys.modules[name]).get("__file__")).startswith(str(tmp_path)):
            del sys.modules[name]


async def said(made: Registry, chain: str = "say") -> Any:
    [part] = (await made.load(chain)).values()
    return await part.ainvoke("q")


async def following(reload: Reload) -> Registry:
    async with asyncio.timeout(BOUND_SECONDS):
        return await reload.next(SETTINGS)


@asynccontextmanager
async def refused(reload: Reload, caplog: pytest.LogCaptureFixture) -> Any:
    """Within it a version is written that cannot be taken; its line is what is given."""
    told: list[str] = []
    waiting = asyncio.create_task(reload.next(SETTINGS))
    yield told

    async def is_told() -> bool:
        told[:] = [record.getMessage() for record in caplog.records if record.name == "holdfast.reload"]
        return bool(told)

    await eventually(is_told)
    caplog.clear()
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_changed_module_is_taken_anew_with_those_that_import_it(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each version has the length and second of the one before, so Python would take its compiled file."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    os.utime(author.folder / "reloaded_words.py", ns=(0, SECOND))
    made = Registry(SETTINGS)
    assert await said(made) == "one two"
    reload = Reload(SETTINGS, _servable)
    for number, words in enumerate(("two one", "one TWO", "TWO one"), 1):
        author.write("reloaded_words.py", f'WORDS = "{words}"\n', SECOND + number)
        assert await said(await following(reload)) == words
    assert await said(made) == "one two"  # what runs by the old version is not changed under way


async def test_chains_come_and_go_and_may_move_within_their_module(author: Author) -> None:
    Registry(SETTINGS)
    reload = Reload(SETTINGS, _servable)
    author.write(
        f"{MODULE}.py", "\n\n" + CHAINS + CHAINS.replace('"say"', '"tell"').replace(" say(", " tell(")
    )
    made = await following(reload)
    assert {"say", "tell", "chat"} <= set(made.catalogue())
    author.write(f"{MODULE}.py", CHAINS.replace('"say"', '"speak"'))
    made = await following(reload)
    assert {"speak", "chat"} <= set(made.catalogue())
    assert not {"say", "tell"} & set(made.catalogue())


async def test_what_the_new_version_imports_first_is_watched_from_then_on(author: Author) -> None:
    Registry(SETTINGS)
    reload = Reload(SETTINGS, _servable)
    author.write("reloaded_more.py", 'MORE = "a"\n')
    author.write("reloaded_words.py", "from reloaded_more import MORE as WORDS\n")
    assert await said(await following(reload)) == "a"
    author.write("reloaded_more.py", 'MORE = "b"\n')
    assert await said(await following(reload)) == "b"


WRONG = [
    ("reloaded_words.py", 'WORDS = ("one"\n\n', "SyntaxError: '(' was never closed (", ":1)"),
    (
        "reloaded_words.py",
        'A = 1\nWORDS = lacking["one"]\n',
        "NameError: name 'lacking' is not defined (",
        ":2)",
    ),
    ("reloaded_words.py", "raise RuntimeError('one\\ntwo')\n", "RuntimeError: one two (", ":1)"),
    ("reloaded_words.py", "import sys\nsys.exit(3)\n", "SystemExit: 3 (", ":2)"),
    (
        f"{MODULE}.py",
        CHAINS + CHAINS.replace("def say", "def two"),
        "ValueError: two chains are named say (",
        ")",
    ),
    (
        f"{MODULE}.py",
        CHAINS.replace('"say"', '"say", input={"type": 1}'),
        "ValueError: the input of chain say",
        "",
    ),
]


@pytest.mark.parametrize(("file", "text", "beginning", "end"), WRONG, ids=[row[2][:12] for row in WRONG])
async def test_a_module_that_cannot_be_imported_leaves_the_old_one_and_is_told_in_one_line(
    author: Author, caplog: pytest.LogCaptureFixture, file: str, text: str, beginning: str, end: str
) -> None:
    Registry(SETTINGS)
    modules = {name: sys.modules[name] for name in (MODULE, "reloaded_words")}
    marks = dict(registry._marked)
    reload = Reload(SETTINGS, _servable)
    before = (author.folder / file).read_text()
    async with refused(reload, caplog) as told:
        author.write(file, text)
    [line] = told
    assert line.startswith(f"the chains are not reloaded: {beginning}")
    place = f"({author.folder / file}" if "(" in line else ""
    assert place in line
    assert line.endswith(end)
    assert "\n" not in line
    assert {name: sys.modules[name] for name in modules} == modules
    assert registry._marked == marks
    author.write(file, before)
    assert await said(await following(reload)) == "one two"


async def test_a_mistake_in_a_module_that_is_new_is_mended_there_alone(
    author: Author, caplog: pytest.LogCaptureFixture
) -> None:
    Registry(SETTINGS)
    reload = Reload(SETTINGS, _servable)
    async with refused(reload, caplog) as told:
        author.write("reloaded_words.py", "from reloaded_more import MORE as WORDS\n")
    assert "ModuleNotFoundError: No module named 'reloaded_more' (" in told[0]
    async with refused(reload, caplog) as told:
        author.write("reloaded_more.py", "MORE = \n")
    assert f"SyntaxError: invalid syntax ({author.folder}/reloaded_more.py:1)" in told[0]
    author.write("reloaded_more.py", 'MORE = "mended"\n')
    assert await said(await following(reload)) == "mended"


async def test_a_file_that_is_gone_is_told_and_comes_back(
    author: Author, caplog: pytest.LogCaptureFixture
) -> None:
    Registry(SETTINGS)
    reload = Reload(SETTINGS, _servable)
    async with refused(reload, caplog) as told:
        (author.folder / f"{MODULE}.py").unlink()
    [line] = told
    begins = f"the chains are not reloaded: ValueError: GATEWAY_CHAINS: there is no module {MODULE}: "
    assert line.startswith(begins)
    author.write(f"{MODULE}.py", CHAINS)
    assert await said(await following(reload)) == "one two"


async def test_a_module_of_a_namespace_package_is_taken_anew_and_put_back(
    author: Author, caplog: pytest.LogCaptureFixture
) -> None:
    (author.folder / "reloaded_space").mkdir()
    author.write("reloaded_space/one.py", CHAINS.replace("WORDS\n\n", "WORDS\n\nVERSION = 1\n\n", 1))
    settings = Settings(chains="reloaded_space.one", development="yes")
    Registry(settings)
    old, space = sys.modules["reloaded_space.one"], sys.modules["reloaded_space"]
    reload = Reload(settings, _servable)
    waiting = asyncio.create_task(reload.next(settings))
    author.write("reloaded_space/one.py", CHAINS.replace('"say"', '"say", input={"type": 1}'))
    await eventually(lambda: _is("is no JSON Schema" in caplog.text))
    assert sys.modules["reloaded_space.one"] is space.one is old
    author.write("reloaded_space/one.py", CHAINS)
    assert await said(await asyncio.wait_for(waiting, BOUND_SECONDS)) == "one two"
    assert space.one is not old
    sys.modules.pop("reloaded_space")


async def _is(fact: bool) -> bool:
    return fact


def test_modules_of_others_are_not_the_authors_wherever_they_lie(author: Author, monkeypatch: Any) -> None:
    Registry(SETTINGS)
    watch = Watch([MODULE])
    assert set(watch.modules()) == {MODULE, "reloaded_words"}
    own = author.folder
    assert watch.is_own(f"{own}/app/part.py")
    for foreign in (".venv/lib/python3/site-packages/part.py", "app/part.so"):
        assert not watch.is_own(f"{own}/{foreign}")
    for module in (asyncio, httpx, registry):
        assert not watch.is_own(str(module.__file__))
    checkout = Path(registry.__file__).parents[2]
    monkeypatch.chdir(checkout)  # as `make run` does: the product is below the current folder
    here = Watch([MODULE])
    assert here.is_own(f"{checkout}/mine.py")
    assert not here.is_own(registry.__file__)
    assert {MODULE, "reloaded_words"} <= set(here.modules())  # beside the module that GATEWAY_CHAINS names


def test_no_more_than_so_many_files_are_looked_at(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(SETTINGS)
    monkeypatch.setattr(watched, "MOST_FILES", 1)
    watch = Watch([MODULE])
    first, second = watch.modules().values()
    for file in (first, second):
        Path(file).unlink()
    assert watch.changed() == [first]


@pytest.mark.parametrize(
    ("mode", "development", "chains", "reloads"),
    [
        ("all", "yes", MODULE, True),
        ("all", "no", MODULE, False),
        ("all", "yes", "", False),
        ("worker", "yes", MODULE, False),
        ("web", "yes", MODULE, False),
    ],
)
async def test_modules_are_taken_anew_by_all_in_development_and_by_nothing_else(
    author: Author, mode: str, development: str, chains: str, reloads: bool
) -> None:
    settings = Settings(chains=chains, development=development)
    assert (Host(mode, settings, None)._reload is not None) == reloads
