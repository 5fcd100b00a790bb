"""Every regular expression of the product takes a time that grows as its text does, whatever the text."""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.turns import cost
from workers.chains.report import MOST_SECTIONS, titles

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("gateway", "holdfast_gateway", "workers")
FILES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
Pattern = str | bytes
LONGEST = 16_384  # characters
SPARE_SECONDS = 0.004
METHODS = {"match", "fullmatch", "search", "sub", "split", "findall", "finditer"}
# What a text is made of, beside all pairs of its signs: what makes the pattern try most, again and again.
# A pattern that is not here fails `test_fault_61_every_pattern_is_in_the_table`.
TABLE: Mapping[Pattern, str] = {
    # gateway
    r"(?P<scheme>(?i:https?))://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[!-~]*)?(?:\?[!-~]*)?)": "https://a.[:1/?",
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?": "a-",
    r"[0-9]+|0x[0-9a-f]*": "0xa",
    r"[0-9a-f:.]{2,45}|[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?": "a.:-",
    r"[0-9]{1,7}(\.[0-9]{1,3})?": "0.",
    r"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n": "HTTP/1. 0\r\n",
    r"\r?\n\r?\n": "\r\n",
    r"[$()*+.?]": "$a",
    r"[0-9a-f]{32}": "0z",
    r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)": "export a=",
    r"(?P<at>[0-9]{1,15})-(?P<name>[!-~]{1,2400})": "0-a",
    r"v=(\d+)\.(\d+)": "v=0.",
    r"[0-9]{18}": "0a",
    r"[A-Za-z' ]+": "a' 0",
    r"([0-9]{1,10}-[0-9a-f]{4})\.([0-9]{1,6})": "0-a.",
    r"[0-9]{1,10}-[0-9a-f]{4}": "0-a",
    r"[0-9]{1,15}": "0a",
    r"[0-9]{1,16}": "0a",
    r"([0-9]{10})-([0-9a-f]{4})": "0-a",
    r"[0-9]{1,4}": "0a",
    "[0-9]{1,5}": "0a",
    "([0-9]{1,10}-[0-9a-f]{4}) ([0-9]{1,10}-[0-9a-f]{4}) ([a-z]*) (0|[1-9][0-9]{0,14})": "0-a z1",
    r"[0-9a-f]{2}[A-Za-z0-9_-]{22}": "aZ-",
    r"[0-9a-f]{64}": "0z",
    r"[\r\n\0]": "\r\n\0a",
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}": "0f-",
    r"([1-9][0-9]{9,11})(?:-([1-9][0-9]{0,8}))?\.([A-Za-z0-9_-]{43})": "1-.a",
    r"(?P<at>[0-9]{1,15})-(?P<id>[A-Za-z0-9_-]{24})": "0-a",
    r"(?P<name>[A-Za-z0-9_-]{6})(?P<tag>[0-9a-f]{4})(?P<offset>0|[1-9a-z][0-9a-z]{0,5})": "Af0z",
    r"[0-9]{1,3}": "0a",
    r"([0-9a-f]{32})\.([A-Za-z0-9_-]{43})": "0.a",
    r"[a-z][a-z0-9_]{0,63}": "a0_",
    r"[0-9]{1,10}": "0a",
    r"[A-Za-z0-9._-]{1,64}": "a.!",
    r"(?i:bearer) +([\x21-\x7e]{1,8192})": "b x",
    r"[A-Za-z0-9._~!$&'()*+,;=:@-]{1,128}": "a/",
    r"(?!\.{1,2}$|stream:)[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}": "./as",
    r"[\x20-\x7e]{1,255}": "a\n",
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]": "\na\u2028",
    r"[\x21\x23-\x3c\x3e-\x7e]+": "a =",
    r"(?:^|\s-?)(?:MISCONF|NOREPLICAS|MASTERDOWN|OOM|READONLY|LOADING|MOVED|CLUSTERDOWN|TRYAGAIN|BUSY|NOPERM|NOAUTH)\s|^UNBLOCKED force unblock|^The user executing the script can't ": " -OM",  # noqa: E501
    r"(?:^|\s-?)(?:READONLY|MASTERDOWN|LOADING|NOREPLICAS)\s|^UNBLOCKED force unblock": " -LO",
    r"(?:^|\s-?)NOPERM\s|^The user executing the script": " -NO",
    r"(?:^|\s-?)([A-Z]{4,})\s": " -Aa",
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(:[0-9]*)?": "[a:.]0",
    r"(.+\.)?localhost|127(\.[0-9]{1,3}){3}|\[::1\]": "lo.127",
    "%2f": "%2f",
    r"https://|data:image/": "htps:/da",
    r"https://|data:": "htps:/da",
    r"ur[il]$": "uril",
    r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+": "a/*",
    r"0?\.[0-9]{1,9}|0\.?|1(\.0{0,9})?": "01.",
    r"(?:^|_)(?:endpoints?|prox(?:y|ies)|headers?|credentials?|passwords?|secrets?|apikeys?|(?:api|access|secret|private|signing|subscription|account)_keys?|(?:api|ad|auth|access|session|bearer|refresh|security)_tokens?|token_provider|api_base|client_(?:kwargs|args|options)|(?:urls?|uris?|host|hostname)$|^token$|[a-z0-9]+_client$)(?:_|$)": "_aclient",  # noqa: E501
    r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+": "aA_ ",
    r"(?:^|_)(?:kwargs|args|options)$": "_args",
    r"([A-Za-z0-9_-]{1,64})\.([^.]{1,200})\.(call|again|[0-9]{1,4}-[0-9]{1,4})": "a.0-c",
    # gateway, of what the operator has set
    r"(?=.{3,56}$)[a-z0-9]+(-[a-z0-9]+)*": "a-",
    r"https?://[a-z0-9.-]+(:[0-9]{1,5})?": "htps:/.0",
    r"127\.[0-9.]+|::1": "127.:",
    r"127(\.[0-9]{1,3}){3}|::1": "127.:",
    r"\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?": "[a:.]-",
    r"\w+": "a/",
    # holdfast_gateway
    r"[a-z][a-z0-9-]{0,39}": "a-",
    r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*": "a/!",
    # workers
    r"\S+\s*": "a ",
    r"[\x00-\x1f\x7f]": "\na",
    r"[\s\d.)#*•-]*": " 1*a",
    r"[\s*:]*": " *:a",
    r"[^\W_]+": "a_ ",
    r"(?:\w+\()?(?:code=')?([a-z_]+)(?:'|:)": "a_('",
    "[3-5][0-9][0-9]": "3a",
    r"[0-9]{1,12}(\.[0-9]{0,12})?": "0.a",
    r"(?<=[a-z]{3})(?:ing|ed|es|s|ly)$": "aeds",
}


@cache
def uses() -> dict[Pattern, set[str]]:
    """Every pattern of the product, and the methods that it is used by."""
    trees = {path: ast.parse(path.read_text()) for path in FILES}
    compiled: dict[str, set[Pattern]] = defaultdict(set)  # by the name that it has
    found: dict[Pattern, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "re"), f"{path}: import re whole"
            if isinstance(node, ast.Call) and (method := _method_of(node, "re")):
                given = node.args[0]
                assert isinstance(given, ast.Constant), f"{path}:{node.lineno}: a pattern must be a literal"
                assert isinstance(given.value, str | bytes)
                found[given.value] |= {method} & METHODS
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                [target, *_] = node.targets
                literal = node.value.args[0] if _method_of(node.value, "re") == "compile" else None
                if isinstance(literal, ast.Constant) and isinstance(literal.value, str | bytes):
                    assert isinstance(target, ast.Name), f"{path}:{node.lineno}: a pattern has a name"
                    compiled[target.id].add(literal.value)
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                for pattern in compiled.get(name, ()):
                    if node.attr in METHODS:
                        found[pattern].add(node.attr)
    return found


def _method_of(call: ast.Call, module: str) -> str:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    is_of = isinstance(owner, ast.Name) and owner.id == module and isinstance(call.func, ast.Attribute)
    return call.func.attr if is_of and isinstance(call.func, ast.Attribute) else ""


def texts(signs: str) -> Iterator[Callable[[int], str]]:
    """Texts of any length: two signs over and over, or half of each, and a last sign."""
    for one, other in itertools.product(signs, repeat=2):
        for last in ("", "!", "\x00"):
            yield lambda n, one=one, other=other, last=last: (one + other) * (n // 2) + last  # type: ignore[misc]
            yield lambda n, one=one, other=other, last=last: one * (n // 2) + other * (n // 2) + last  # type: ignore[misc]


def steepest(call: Callable[[str], object], signs: str) -> str:
    """The text at whose growth the cost grew more than it did, or nothing."""
    sizes = [*range(8, 32, 4), *(2**power for power in range(5, LONGEST.bit_length()))]
    for text in texts(signs):
        before, smaller = 0.0, 0
        for size in sizes:
            given = text(size)
            now = cost(lambda given=given: call(given), times=1)  # type: ignore[misc]
            most = 1.5 * before * size / max(smaller, 1) + SPARE_SECONDS
            if now > most:
                now = cost(lambda given=given: call(given), times=3)  # type: ignore[misc]
            if now > most:
                return f"{given[:20]!r}… {size}: {now * 1000:.1f} ms, {smaller}: {before * 1000:.1f} ms"
            before, smaller = now, size
    return ""


def test_fault_61_every_pattern_is_in_the_table() -> None:
    known = {pattern if isinstance(pattern, str) else pattern.decode() for pattern in uses()}
    assert known == set(TABLE)
    assert all(uses().values()), [pattern for pattern, methods in uses().items() if not methods]


@pytest.mark.parametrize("pattern", TABLE, ids=repr)
def test_fault_61_a_patterns_cost_grows_as_its_text_does(pattern: str) -> None:
    forms: list[Pattern] = [pattern, pattern.encode()]
    used = [form for form in forms if form in uses()]
    assert used
    for form in used:
        made = re.compile(form)
        for method in uses()[form]:
            arguments = ("",) if method == "sub" else ()

            def call(
                text: str, made: Any = made, method: str = method, arguments: tuple[str, ...] = arguments
            ) -> object:
                is_bytes = isinstance(made.pattern, bytes)
                return getattr(made, method)(*arguments, text.encode() if is_bytes else text)

            assert steepest(call, TABLE[pattern]) == ""


def test_fault_61_the_measure_finds_what_grows_faster() -> None:
    assert steepest(re.compile(r"[\s*:]+$").search, " *:a")
    assert steepest(re.compile(r"(a+)+b").match, "ab")


def test_fault_61_an_outline_of_blanks_and_asterisks_takes_the_time_of_its_length() -> None:
    assert steepest(lambda text: titles({"outline": f"a{text}a", "input": "x"}), " *:1a") == ""
    lines = ["1. **One:**", "  - Two  ", "### Three ###", "٤) Four: *:", "***", "5.  5 six"]
    told = ["One", "Two", "Three ###", "Four", "5 six"]
    assert titles({"outline": "\n".join(lines), "input": "x"}) == [*told[:4], "six"]
    assert titles({"outline": " * \n", "input": "the topic"}) == ["the topic"]
    assert len(titles({"outline": "a\n" * 100, "input": "x"})) == MOST_SECTIONS
