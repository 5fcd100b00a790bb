"""Compute arithmetic from a text, without `eval`: numbers, parentheses, + - * / // % **, within bounds."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

LONGEST_EXPRESSION = 200
LARGEST = 10.0**100
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(expression: str) -> str:
    """Return the value. Raises ValueError, with a message for the model, when the text has no value."""
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError("the expression is too long")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("this is no arithmetic") from None
    except (ZeroDivisionError, OverflowError):
        raise ValueError("there is no such number") from None
    return str(value)


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](_value(operand)))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
    raise ValueError("only numbers, parentheses and + - * / // % ** are known here")


def _power(base: int | float, exponent: int | float) -> int | float:
    """Return the power. Its size is checked first, because computing 9**9**9 would never finish."""
    if base and abs(exponent * math.log10(abs(base))) > math.log10(LARGEST):
        raise ValueError("the number is too large, or too small")
    return _bounded(base**exponent)


def _bounded(value: Any) -> int | float:
    if isinstance(value, complex) or math.isnan(value):
        raise ValueError("there is no such number")
    if abs(value) > LARGEST:
        raise ValueError("the number is too large")
    return int(value) if isinstance(value, int) else float(value)
