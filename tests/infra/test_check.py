"""Tests of the check itself, with templates of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.check import Check
from tests.infra.findings import Report
from tests.infra.syntax import faults, parse
from tests.infra.types import resources

ROOT = Path(__file__).resolve().parents[2]
GROUP = "'Microsoft.Resources/resourceGroups@2025-04-01'"


def check(folder: Path, source: str, **modules: str) -> Report:
    """Return the report on a template and its modules."""
    for name, content in {"main": source, **modules}.items():
        (folder / f"{name}.bicep").write_text(content)
    return Check(folder / "main.bicep").run()


def reasons(report: Report) -> list[str]:
    return [f"{fault.line} {fault.text}" for fault in sorted(report.faults)]


@pytest.mark.parametrize(
    "source",
    [
        "param a string\n",
        "param a string // why\n",
        "param a string?\n",
        "var a = { b: 1, c: 2 }\n",
        "var a = [ 1, 2 ]\n",
        "var a = [\n  1 // one\n  2\n]\n",
        "var a = 'it\\'s \\${a} \\u{1F600}'\n",
        "var a = '''\nraw \\d\n'''\n",
        "var a = b ? 1 : 2\n",
        "output a string[] = [for b in c: '${b}']\n",
    ],
)
def test_the_grammar_takes_what_bicep_takes(source: str) -> None:
    assert not list(faults(parse(source)))


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ("param a\n", 1),
        ("var a = \n", 1),
        ("var a = {\n  b 1\n}\n", 2),
        ("var a = { b: 1 c: 2 }\n", 1),
        ("var a = [ 1 2 ]\n", 1),
        ("var a = 1 var b = 2\n", 1),
        ("var a = 'b\n", 2),
        ("var a = 'b\\d'\n", 1),
        ("var a = '${b'\n", 1),
        ("var a = (1\n", 1),
        ("resource a 'b@c' {\n}\n", 1),
        ("output a string 'b'\n", 1),
    ],
)
def test_the_grammar_refuses_what_bicep_refuses(source: str, at: int) -> None:
    assert [line for line, _ in faults(parse(source))][:1] == [at]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("location: 'x'", []),
        ("location: p", []),
        ("location: toLower(p)", []),
        ("location: p == 'a' ? 'b' : 'c'", []),
        ("location: [p][0]", []),
        ("location: l[0].name", []),
        ("location: 1", ["5 g.location is int, not string"]),
        ("location: true", ["5 g.location is bool, not string"]),
        ("location: ['x']", ["5 g.location is array, not string"]),
        ("location: p == 'a' ? 'b' : 2", ["5 g.location is int, not string"]),
        ("location: length(p)", ["5 g.location is int, not string"]),
        ("location: !empty(p)", ["5 g.location is bool, not string"]),
        ("location: l", ["5 g.location is array, not string"]),
        ("location: l[0]", ["5 g.location is object, not string"]),
        ("location: l[0].size", ["5 g.location is int, not string"]),
        ("location: l[0].nam", ["5 l[0].nam: there is no nam"]),
        ("location: p.name", ["5 p.name: string has no properties"]),
        ("location: q", ["5 q is declared nowhere"]),
        ("location: nothing(p)", ["5 no function nothing is known"]),
        ("location: map(l, x => x.name)", []),
    ],
)
def test_a_value_is_followed_to_its_type(tmp_path: Path, written: str, found: list[str]) -> None:
    names = "param p string\nvar l = [{ name: p, size: 1 }]\n"
    report = check(tmp_path, f"{names}resource g {GROUP} = {{\n  name: p\n  {written}\n}}\n")
    assert [reason for reason in reasons(report) if "used nowhere" not in reason] == found


def test_what_cannot_be_known_is_listed(tmp_path: Path) -> None:
    source = f"param p object\nresource g {GROUP} = {{\n  name: 'g'\n  location: p.where\n}}\n"
    report = check(tmp_path, source)
    assert not report.faults
    assert [str(item) for item in report.passed_over] == ["main.bicep:4: g.location: any type"]


def test_a_variables_object_is_checked_where_it_is_set(tmp_path: Path) -> None:
    names = "var p = {\n  managdBy: 'x'\n}\n"
    source = f"resource g {GROUP} = {{\n  name: 'g'\n  location: 'x'\n  properties: p\n}}\n"
    assert reasons(check(tmp_path, names + source)) == ["7 g.properties.managdBy does not exist"]


def test_a_module_is_checked_from_both_sides(tmp_path: Path) -> None:
    module = "param size int\nparam name string = 'n'\noutput url string = '${name}${size}'\n"
    source = "module m 'm.bicep' = {\n  name: 'm'\n  params: {\n    size: 'x'\n  }\n}\n"
    assert reasons(check(tmp_path, source + "output u int = m.outputs.url\n", m=module)) == [
        "4 m.params.size is string, not int",
        "7 output u is string, not int",
    ]


def test_a_modules_parameters_may_not_be_left_out(tmp_path: Path) -> None:
    source = "module m 'm.bicep' = {\n  name: 'm'\n}\n"
    assert reasons(check(tmp_path, source, m="param a int\noutput b int = a\n")) == ["1 m.params is missing"]


def test_loops_and_conditions_are_looked_into(tmp_path: Path) -> None:
    source = (
        f"resource a {GROUP} = [for (n, i) in ['x', 'y']: {{\n  name: '${{n}}${{i}}'\n  locatio: n\n}}]\n"
        f"resource b {GROUP} = if (1 < 2) {{\n  name: 'b'\n  location: true\n}}\n"
    )
    assert reasons(check(tmp_path, source)) == [
        "1 a.location is missing",
        "3 a.locatio does not exist",
        "7 b.location is bool, not string",
    ]


def test_an_existing_resource_needs_its_name_only(tmp_path: Path) -> None:
    source = f"resource a {GROUP} existing = {{\n  name: 'a'\n}}\noutput where string = a.location\n"
    assert not check(tmp_path, source).faults
    source = (
        f"resource a {GROUP} existing = {{\n  name: 'a'\n  location: 'b'\n}}\noutput where string = a.id\n"
    )
    assert reasons(check(tmp_path, source)) == ["3 a.location does not exist"]


def test_what_the_check_does_not_know_is_a_fault(tmp_path: Path) -> None:
    assert reasons(check(tmp_path, "func f(a string) string => a\n")) == [
        "1 the check does not know a user defined function"
    ]


def test_every_published_type_held_is_used_and_none_is_missing() -> None:
    written = "".join(path.read_text() for path in (ROOT / "infra").rglob("*.bicep"))
    assert not [name for name in resources() if f"'{name}'" not in written]


def test_the_schemas_name_their_source_and_licence() -> None:
    folder = ROOT / "tests" / "infra" / "schemas"
    for path in folder.glob("*.json"):
        assert '"licence": "MIT, Microsoft"' in path.read_text().splitlines()[0]
    assert "MIT License" in (folder / "LICENSE").read_text()
