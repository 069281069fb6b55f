"""FinQA's programs: `subtract(5829, 5735), divide(#0, 5735)` over a page's table.

The semantics are those of FinQA's official executor (czyssrs/FinQA, code/evaluate/evaluate.py).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence

DECIMALS = 5

_STEP = re.compile(r"\s*([a-z_]+)\(([^()]*)\)\s*")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_REFERENCE = re.compile(r"#([0-9]{1,4})")

_KINDS = {
    ("add",): "sum",
    ("subtract",): "difference",
    ("multiply",): "product",
    ("divide",): "ratio",
    ("greater",): "comparison",
    ("subtract", "divide"): "relative change",
    ("add", "divide"): "average",
}

Table = Sequence[Sequence[str]]
Value = float | str


class ProgramError(ValueError):
    """A program that can't be executed: it is malformed, or a step is undefined."""


def execute(program: str, table: Table) -> Value:
    """The last step's result: a finite float rounded to 5 decimals, or "yes" or "no".

    Steps are separated by a comma, the two arguments of a step by a comma and white space (a comma
    without white space is a thousands comma). Raises ProgramError if it can't be executed.
    """
    results: list[Value] = []
    for name, first, second in _steps(program):
        results.append(_run(name, first, second, table=table, results=results))
    last = results[-1]
    if isinstance(last, str):
        return last
    if not math.isfinite(last):
        raise ProgramError(f"the result is {last}")
    return round(last, DECIMALS) + 0.0


def program_kind(program: str) -> str:
    """What a program computes, in a word or two: 'ratio', 'relative change', 'two steps'.

    "" for an empty or malformed program.
    """
    try:
        names = [name for name, _, _ in _steps(program)]
    except ProgramError:
        return ""
    if len(names) > 2:
        return "three or more steps"
    if any(name in _ROW_OPERATORS for name in names):
        return "table row"
    return _KINDS.get(tuple(names), "two steps" if len(names) == 2 else "other")


def _steps(program: str) -> list[tuple[str, str, str]]:
    steps, position = [], 0
    while True:
        step = _STEP.match(program, position)
        if not step:
            raise ProgramError(f"no step at character {position} of {program!r}")
        arguments = [part.strip() for part in re.split(r",\s+", step.group(2))]
        if len(arguments) != 2:
            raise ProgramError(f"{step.group()!r} has {len(arguments)} arguments, not 2")
        steps.append((step.group(1), arguments[0], arguments[1]))
        position = step.end()
        if position == len(program):
            return steps
        if program[position] != ",":
            raise ProgramError(f"no comma at character {position} of {program!r}")
        position += 1


def _run(
    name: str, first: str, second: str, *, table: Table, results: Sequence[Value]
) -> float | str:
    if name in _ROW_OPERATORS:
        return _ROW_OPERATORS[name](_row(first, table))
    if name != "greater" and name not in _OPERATORS:
        raise ProgramError(f"no operator named {name!r}")
    left, right = _argument(first, results), _argument(second, results)
    if name == "greater":
        return "yes" if left > right else "no"
    try:
        result = _OPERATORS[name](left, right)
    except ArithmeticError as error:
        raise ProgramError(f"{name}({left}, {right}): {error}") from error
    if isinstance(result, complex):
        raise ProgramError(f"{name}({left}, {right}) is not a real number")
    return result


def _power(base: float, exponent: float) -> float | complex:
    result: float | complex = base**exponent
    return result


def _average(cells: Sequence[float]) -> float:
    return sum(cells) / len(cells)


_OPERATORS: dict[str, Callable[[float, float], float | complex]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "exp": _power,
}
_ROW_OPERATORS: dict[str, Callable[[Sequence[float]], float]] = {
    "table_max": max,
    "table_min": min,
    "table_sum": sum,
    "table_average": _average,
}


def _argument(text: str, results: Sequence[Value]) -> float:
    reference = _REFERENCE.fullmatch(text)
    if not reference:
        return _number(text)
    step = int(reference.group(1))
    if step >= len(results):
        raise ProgramError(f"{text} refers to a step that has not run")
    value = results[step]
    if isinstance(value, str):
        raise ProgramError(f"{text} is {value!r}, not a number")
    return value


def _number(text: str) -> float:
    plain = text.replace(",", "").strip()
    if plain == "const_m1":
        return -1.0
    plain = plain.removeprefix("const_")
    is_percent = plain.endswith("%") and plain == text.replace(",", "").strip()
    digits = plain.removesuffix("%").strip() if is_percent else plain
    if not _NUMBER.fullmatch(digits):
        raise ProgramError(f"{text!r} is not a number")
    return float(digits) / 100.0 if is_percent else float(digits)


def _row(label: str, table: Table) -> list[float]:
    rows = [row[1:] for row in table if row and row[0].strip() == label]
    if not rows:
        raise ProgramError(f"the table has no row {label!r}")
    cells = [_number(cell.replace("$", "").split("(")[0]) for cell in rows[-1]]
    if not cells:
        raise ProgramError(f"the row {label!r} has no cells")
    return cells
