"""Rows of the GPU check: written as they come, and a failure is a row of its own."""

import csv
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One result: a check, its setting, what was found, and whether that is right."""

    check: str
    setting: str
    value: str
    passed: str  # 'yes', 'no', or '' for a measurement


class Check(NamedTuple):
    """A part of the GPU check that may fail without harm to the others.

    Attributes:
        name: Name of the row that an error makes.
        setting: Setting of that row.
        rows: Function that yields the rows.
    """

    name: str
    setting: str
    rows: Callable[[], Iterator[Row]]


def failure(name: str, setting: str, error: BaseException) -> Row:
    """Return the row of an error."""
    lines = f'{type(error).__name__}: {error}'.splitlines()
    return Row(name, setting, lines[0], 'no')


def judged(check: str, setting: str, difference: float, limit: float) -> Row:
    """Return the row of a difference that must not exceed a limit."""
    passed = 'yes' if difference <= limit else 'no'
    return Row(check, setting, f'{difference:.1e} (limit {limit:.0e})', passed)


def rows_of(check: Check) -> Iterator[Row]:
    """Yield a check's rows; an error is a row, and ends this check alone."""
    try:
        yield from check.rows()
    except Exception as error:
        traceback.print_exc()
        yield failure(check.name, check.setting, error)


def write_rows(checks: Iterable[Check], path: Path) -> int:
    """Run checks, append their rows to a CSV file, and count what failed."""
    failed = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(Row._fields)
        for check in checks:
            for row in rows_of(check):
                failed += row.passed == 'no'
                writer.writerow(row)
                file.flush()
                print(*row, sep=' | ', flush=True)
    return failed


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file."""
    with path.open(encoding='utf-8', newline='') as file:
        return [Row(*line) for line in csv.reader(file)][1:]
