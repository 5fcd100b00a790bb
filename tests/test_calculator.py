"""The agent's calculator does arithmetic and refuses everything else that Python can do."""

from __future__ import annotations

import pytest

from workers.chains.calculator import LONGEST_EXPRESSION, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(2 + 3) * 4 ** 2", "80"),
        (" 7 // 2 - -1.5 ", "4.5"),
        ("2 ** 100", str(2**100)),
        ("2 ** -1", "0.5"),
        ("17 % 5", "2"),
        ("1e3/4", "250.0"),
    ],
)
def test_arithmetic(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        *("", "x", "1 +", "__import__('os')", "(1).real", "[1][0]", "1 if 1 else 2", "'a' * 9", "True + 1"),
        *(
            "9 ** 9 ** 9",
            "10 ** 101",
            "1 / 0",
            "1 % 0",
            "0 ** -1",
            "(-1) ** 0.5",
            "1e999",
            "f'{1}'",
            "1 << 9",
        ),
        *("9" * 120 + "* 9", "1+" * LONGEST_EXPRESSION + "1", "(" * 150 + "1" + ")" * 150, "lambda: 1", "1j"),
        "9 ** 99 * 9 ** 99",
    ],
)
def test_anything_else_is_refused_in_words(expression: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]{3}"):
        calculate(expression)
