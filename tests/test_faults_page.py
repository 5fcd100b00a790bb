"""docs/faults.md and the tests agree: each row has a test with its number, and each such test has a row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| ([0-9]+) \| (.+) \| (.+) \|$", re.MULTILINE)
# A test's name may contain several row numbers: `test_fault_15_…_and_14_…` counts as 15, its first number.
TEST = re.compile(r"\bdef test_fault_([0-9]+)_")
UNTESTED = "No test:"  # Part of a row's promise, before the reason.


def rows() -> dict[int, str]:
    """Return each row's promise by its number. A number may occur only once on the page."""
    found = ROW.findall((ROOT / "docs/faults.md").read_text())
    numbers = [int(number) for number, _, _ in found]
    assert len(numbers) == len(set(numbers)), "two rows have the same number"
    return {int(number): promise for number, _, promise in found}


def numbers_in_names() -> set[int]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {int(number) for file in files for number in TEST.findall(file.read_text())}


def test_each_row_has_a_test_with_its_number_or_says_why_not() -> None:
    held, promises = numbers_in_names(), rows()
    assert set(range(1, 35)) <= set(promises)
    assert [number for number in promises if number not in held and UNTESTED not in promises[number]] == []
    assert [number for number in promises if number in held and UNTESTED in promises[number]] == []


def test_each_number_in_the_name_of_a_test_is_that_of_a_row() -> None:
    assert numbers_in_names() - set(rows()) == set()
