"""docs/architecture.md and the code agree: scripts, keys, modules, functions, and the states of a stream."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import TRANSITIONS, Status
from gateway.settings import Settings
from gateway.store.conversations import Conversation
from gateway.store.log import Log
from gateway.store.quota import Quota
from gateway.store.record import FIELDS
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from gateway.webhooks.asked import Webhook
from holdfast_gateway.checkpoints import Saver
from tests.support.checkpoints import place, put
from tests.test_layout import PACKAGES, PRODUCT, name_of, package_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
LUA = sorted((ROOT / "gateway/lua").glob("*.lua"))
BEGINNINGS = ("common", "thread", "outbox", "turns")  # Files that are put in front of several scripts.
SCRIPTS = [path for path in LUA if path.stem not in BEGINNINGS]
MOST_LINES_OF_A_RECIPE = 20
HOLE = "\0"  # Placeholder for a part that is put into the string at run time.


def section(heading: str) -> str:
    """Return the text below a heading, up to the next heading of the same or a higher level."""
    level = heading.partition(" ")[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found, f"the page has no section {heading}"
    return found[1]


def headings(text: str) -> list[str]:
    return re.findall(r"^### (.+)$", text, re.MULTILINE)


def spaced(text: str) -> str:
    """Return the text with each run of white space replaced by one space."""
    return " ".join(text.split())


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables of a text, without the header rows."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"(\|-+)+\|", line):
            found.pop()  # The row before this line is the header.
        elif line.startswith("|"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def coded(text: str) -> list[str]:
    """Return each text that is between backticks."""
    return [spaced(found) for found in re.findall(r"`([^`]+)`", text)]


# Scripts


def test_each_script_has_its_section() -> None:
    assert set(headings(section("## Scripts"))) == {path.name for path in LUA}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_called_as_the_page_says(path: Path) -> None:
    comment = " ".join(line.removeprefix("--") for line in path.read_text().splitlines() if line[:2] == "--")
    call = spaced(comment[: comment.index(")") + 1])
    assert call.startswith(f"{path.stem}(")
    text = section(f"### {path.name}")
    assert call in coded(text)
    callers = [ROOT / name.partition(":")[0] for name in coded(text) if ".py: " in name]
    assert any(re.search(rf'"{path.stem}"', caller.read_text()) for caller in callers if caller.exists())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_answers_what_the_page_says(path: Path) -> None:
    source = re.sub(r"--.*", "", path.read_text())
    answers = re.findall(r"(?:\breturn|\banswer =) \{ '([a-z]+)'", source)
    others = set(re.findall(r"\breturn\b(?! \{ '[a-z]+')[^\n]*?(?= end\b|$)", source, re.MULTILINE))
    # These lines return a list made earlier from words found above, or a value from a helper of the script.
    known = {"return", "return answer", "return answers", "return answers[1]"}
    assert {one for one in others if not one.startswith("return math.")} <= known
    told = re.findall(r"^- `([a-z]+)`: \S", section(f"### {path.name}"), re.MULTILINE)
    assert len(told) == len(set(told))
    assert set(told) == set(answers)


@pytest.mark.parametrize("name", BEGINNINGS)
def test_the_functions_of_several_scripts_are_named(name: str) -> None:
    functions = re.findall(
        r"^local function (\w+)", (ROOT / f"gateway/lua/{name}.lua").read_text(), re.MULTILINE
    )
    items = re.findall(r"^- (.+?):", section(f"### {name}.lua"), re.MULTILINE)
    assert sorted(name for item in items for name in coded(item)) == sorted(functions)


# Keys


def keys() -> dict[str, tuple[str, str]]:
    """Return, for each key pattern on the page, its type and the file that makes it."""
    first = section("## Keys in Redis").partition("\n\nThe record's fields")[0]
    table = {coded(row[0])[0]: (row[1], coded(row[5])[0]) for row in rows(first)}
    assert len(table) == len(rows(first))
    writers = {name for row in rows(first) for name in coded(row[3]) if ".py: " not in name}
    assert writers <= {path.stem for path in SCRIPTS}
    return table


def written(node: ast.AST) -> str | None:
    """Return the text of a string, with HOLE for each inserted part; None if the node is not a string."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes(text)):
            return text.decode("latin-1")
        case ast.JoinedStr(values=values):
            return "".join(written(value) or HOLE for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            one, other = written(left), written(right)
            return None if one is None and other is None else (one or HOLE) + (other or HOLE)
        case ast.BinOp(left=left, op=ast.Mod()):
            one = written(left)
            return None if one is None else re.sub(r"%[bsd]", HOLE, one)
    return None


def made() -> Iterator[tuple[str, str]]:
    """Yield each string in the code that has the form of a key, and the file that makes it."""
    tag = rf"\{{{HOLE}\}}"
    key = re.compile(
        rf"{tag}(:([a-z]+|{HOLE}))+|(live|turn)(:([a-z]+|{HOLE}))+|{HOLE}(:{HOLE})*(:[a-z]+)+(:{HOLE})*"
    )
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            text = written(node) if isinstance(node, ast.JoinedStr | ast.BinOp) else None
            if text and key.fullmatch(text):
                yield text, str(path.relative_to(ROOT))


def test_each_key_that_the_code_makes_is_on_the_page() -> None:
    table = keys()
    known = "|".join(map(re.escape, table))  # A key may be built from another key.
    fitting: set[str] = set()
    for text, file in made():
        form = re.compile(re.escape(text).replace(re.escape(HOLE), f"(?:[^:]+|{known})"))
        found = {pattern for pattern, (_, where) in table.items() if form.fullmatch(pattern)}
        assert found, f"{file} makes a key {text.replace(HOLE, '*')}, which the page lacks"
        fitting |= {pattern for pattern in found if table[pattern][1].startswith(f"{file}:")}
    assert set(table) - fitting == set(), "no code makes these keys where the page says"


def test_a_callers_keys_are_on_the_page() -> None:
    names = {key.partition(":")[2] for key in Quota.keys("alice")}
    assert {f"{{caller}}:{name}" for name in names} == {key for key in keys() if key.startswith("{caller}")}


def pattern_of(key: str) -> str:
    """Return a stored key in the pattern form that the page uses."""
    for form, name in (
        (r"\{[0-9a-f]{2}\}:", "{bb}:"),
        (r"\{[0-9a-f]{32}\}:conversation", "{name}:conversation"),
        (r"\{[0-9a-f]{32}\}:(saved|names|order|thread|streams|memory|turns)$", r"{thread}:\1"),
        (r"\{[0-9a-f]{32}\}:seen:.+", "{owner}:seen:<name>"),
        (r"\{[0-9a-f]{32}\}:(threads|named|mine|feed|feeding|running|spent|minute|webhooks)$", r"{owner}:\1"),
        (r"\{[0-9a-f]{32}\}:", "{caller}:"),
        (r"\{jobs\}:", "{queue}:"),
        (r"(:job:|:log:|:kept:|:journal:).+", r"\1<id>"),
        (r":idem:.+", ":idem:<hash>"),
        (r":webhook:.+", ":webhook:<name>"),
    ):
        key = re.sub(form, name, key)
    return key


def plain(text: bytes | str) -> str:
    return text.decode() if isinstance(text, bytes) else text


async def test_what_stands_in_a_store_is_on_the_page(redis_url: str, redis: Redis) -> None:
    settings = Settings(redis_url=redis_url, queue_name="jobs")
    gateway = Gateway(settings, {"c": ("c",)})
    hook = Webhook("https://example.org", unseen=60.0)
    start = Start("c", {"input": 1}, {}, {"ticket": 7})
    try:
        parts = gateway.parts
        stream_id = (await gateway.create(start, owner="alice", key="key")).id
        await gateway.cancel(stream_id, "alice")
        stream_id = (await gateway.create(start, owner="alice", claims={"tenant": "t"})).id
        in_thread = await gateway.create(replace(start, thread="trip"), owner="alice")
        assert await parts.threads.remember(in_thread, [{}], thread_ms=60_000, most_bytes=1000)
        await parts.queue.reserve("another", 10, 0)
        await parts.conversations.turn("format", "alice", "name", Conversation(), stream_id)
        await parts.log.ask(stream_id, 1000)
        claim = (
            await parts.log.claim(stream_id, protocol.new_token(), 60_000, version=0, run_ms=60_000)
        ).claim
        assert claim is not None
        await parts.log.append(
            claim, claim.log_end, b"", claim.record.last_id, 60_000, fields={"failures": 0}
        )
        failed = (await gateway.create(start, owner="alice")).id
        claim = (await parts.log.claim(failed, protocol.new_token(), 60_000)).claim
        assert claim is not None
        spent = {"usage": '{"input_tokens":1}'}
        await parts.log.append(
            claim, claim.log_end, b"", claim.record.last_id, 60_000, status="failed", fields=spent
        )
        assert await parts.log.take_turn("sweep", 60_000) == "yes"
        assert await parts.log.take_turn("webhooks", 60_000) == "yes"
        for webhook in (hook, replace(hook, unseen=None)):
            told = (await gateway.create(replace(start, webhook=webhook), owner="alice")).id
            await gateway.end(told, "alice")
        assert await parts.outbox.take(f"{told}_cancelled", "t", 60_000)
        assert await parts.outbox.settle(f"{told}_cancelled", "t", "dead") == "settled"
        await parts.presence.note()
        await gateway.readiness()
        assert await redis.exists("{" + stream_id[:2] + "}:open")
        await put(Saver(parts.redis, owner="alice"), place(), {"a": (1, "x")})
        assert parts.log.projector is not None
        await parts.log.projector.close()
        jobs = [key async for key in redis.scan_iter("*:job:*")]
        fields = {plain(name) for key in jobs for name in await redis.hkeys(key)}
        found = {(pattern_of(plain(key)), plain(await redis.type(key))) async for key in redis.scan_iter()}
    finally:
        await gateway.close()
    types = {"sorted set": "zset"}
    table = {pattern: types.get(kind, kind) for pattern, (kind, _) in keys().items() if kind != "channel"}
    # These keys exist for one second, or until the projector has done its work.
    brief = {"{caller}:looked", "turn:ready:{bb}:open", "{bb}:journal:<id>", "{bb}:due"}
    assert {pair for pair in found if pair[0] not in brief} == {
        pair for pair in table.items() if pair[0] not in brief
    }
    assert fields <= record_fields()


# The record


def record_fields() -> set[str]:
    text = section("## Keys in Redis").partition("The record's fields")[2]
    return {name.partition("<")[0] for row in rows(text) for name in coded(row[1])}


def test_the_records_fields_are_those_that_are_read_and_written() -> None:
    source = "\n".join(path.read_text() for path in LUA)
    calls = re.findall(r"redis\.call\('H(?:SET|SETNX|INCRBY)', JOB, (.+)", source)
    wrote = {name for call in calls for name in re.findall(r"(?<![(\w] )'([a-z_]+)',", call)}
    told = record_fields()
    assert {"status", *FIELDS} - told == set()
    assert wrote - told - {status.value for status in Status} == set()
    product = source + "".join(path.read_text() for path in PRODUCT)
    assert {name for name in told if not re.search(rf"\b{name}(?!\w)", product)} == set()


# Modules, files and functions


def modules() -> dict[str, list[str]]:
    """Return the files of each package, in the page's order. A package's own line is its heading."""
    found = {}
    for package in headings(section("## Modules")):
        found[package] = [coded(row[0])[0] for row in rows(section(f"### {package}"))]
        assert all(row[1] for row in rows(section(f"### {package}")))
    return found


def test_the_packages_stand_in_the_order_of_the_layout() -> None:
    assert list(modules()) == [package for row in PACKAGES for package in row]


def test_each_module_has_its_line_and_each_line_its_module() -> None:
    for package, told in modules().items():
        own = {
            str(path.relative_to(ROOT))
            for path in PRODUCT
            if package_of(name_of(path)) == package
            and not (path.name == "__init__.py" and path.parent == ROOT / package.replace(".", "/"))
        }
        heading = f"{package.replace('.', '/')}/__init__.py"
        assert own - set(told) == set(), "these have no line"
        assert set(told) - own - {heading} == set(), "these are no modules of that package"
        assert len(told) == len(set(told))


@cache
def names_in(path: Path) -> set[str]:
    """Return the dotted names of all that a module and its classes define."""

    def names(body: list[ast.stmt], before: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield before + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{before}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            yield from (before + target.id for target in targets if isinstance(target, ast.Name))

    return set(names(ast.parse(path.read_text()).body))


def test_each_file_and_each_function_that_the_page_names_exists() -> None:
    missing, functions = [], 0
    for text in coded(re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)):
        found = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)+/?|\w+\.(?:py|txt))(?:: (\S+))?", text)
        if found is None or not re.search(r"\.\w+$|/$", found[1]):
            continue
        path, name = ROOT / found[1], found[2]
        if not path.exists() or (name and name not in names_in(path)):
            missing.append(text)
        functions += name is not None
    assert missing == []
    assert functions > 100


def test_each_script_that_the_page_names_exists() -> None:
    files = {path.name for path in LUA}
    assert set(re.findall(r"\b\w+\.lua\b", PAGE)) == files


def test_each_link_leads_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        assert (ROOT / "docs" / file).exists() if file else anchor in anchors, target
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/architecture.md)" in (ROOT / name).read_text(), name


# States


def test_the_diagram_of_states_is_the_transition_table() -> None:
    [diagram] = re.findall(r"```mermaid\n(.*?)```", section("## The states of a stream"), re.DOTALL)
    edges = re.findall(r"^ +(\S+) --> ([^\s:]+)(?:: \S.*)?$", diagram, re.MULTILINE)
    assert len(edges) == diagram.count("-->") == len(set(edges))
    allowed = {(str(one), str(other)) for one, others in TRANSITIONS.items() for other in others}
    ends = {(str(one), "[*]") for one, others in TRANSITIONS.items() if not others}
    assert set(edges) == allowed | ends | {("[*]", str(Status.QUEUED))}


# How to add


def test_each_recipe_is_short() -> None:
    text = section("## How to add")
    assert headings(text) == [
        "A format",
        "A queue",
        "A setting",
        "A script",
        "An event",
        "A chain that ships",
    ]
    for heading in headings(text):
        lines = [line for line in section(f"### {heading}").splitlines() if line]
        assert 0 < len(lines) <= MOST_LINES_OF_A_RECIPE, heading


def test_a_buckets_keys_are_those_of_a_stream() -> None:
    stream_id = protocol.new_stream_id()
    made = {pattern_of(key) for key in Log.keys(stream_id)}
    assert made == {key for key, (_, where) in keys().items() if where == "gateway/store/log.py: Log.keys"}
