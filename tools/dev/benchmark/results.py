"""Rows of measurements, and the CSV file that keeps them."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Optional

from mmdet_consistent.utils.timing import Summary

from .cases import Case

MEMORY = 'peak_memory'
COMPILATION, GRAPHS = 'compilation', 'graphs'
SECONDS, MEGABYTES, COUNT = 's', 'MB', 'n'


@dataclass(frozen=True)
class Row:
    """One part of one contender's work in one case.

    Attributes:
        case: The setting.
        groups: Sections of the report that asked for it.
        contender: Who.
        part: ``'forward'``, ``'backward'``, ``'total'``, ``'peak_memory'``; of a
            compiled head also ``'compilation'`` and ``'graphs'``.
        unit: ``'s'``, ``'MB'`` (10⁶ bytes) or ``'n'``.
        value: Median and quartiles.
        ratio: To mmdet's own head, repetition by repetition; ``None`` where
            that did not take part.
        repetitions: Number of values behind it.
        anchors: Of one image.
    """

    case: Case
    groups: tuple[str, ...]
    contender: str
    part: str
    unit: str
    value: Summary
    ratio: Optional[Summary]
    repetitions: int
    anchors: int


CASE_TYPES = {field.name: field.type for field in fields(Case)}
COLUMNS = (
    'groups', *CASE_TYPES, 'anchors', 'contender', 'part', 'unit',
    'median', 'q1', 'q3', 'ratio', 'ratio_q1', 'ratio_q3', 'repetitions',
)  # fmt: skip


def write_csv(path: Path, rows: Sequence[Row], about: Mapping[str, str]) -> None:
    """Write all rows; ``about`` (machine, versions) goes before them as comments."""
    text = io.StringIO()
    for key, value in about.items():
        text.write(f'# {key}: {value}\n')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    for row in rows:
        ratio = ['', '', ''] if row.ratio is None else _digits(row.ratio)
        writer.writerow(
            [
                ';'.join(row.groups),
                *asdict(row.case).values(),
                row.anchors,
                row.contender,
                row.part,
                row.unit,
                *_digits(row.value),
                *ratio,
                row.repetitions,
            ]
        )
    partial = path.with_suffix('.partial')
    partial.write_text(text.getvalue())
    os.replace(partial, path)


def _digits(summary: Summary) -> list[str]:
    return [f'{value:.5g}' for value in summary]


def read_csv(path: Path) -> tuple[list[Row], dict[str, str]]:
    """Read what :func:`write_csv` wrote.

    Raises:
        ValueError: If a column is missing.
    """
    lines = path.read_text().splitlines()
    about = dict(line[2:].split(': ', 1) for line in lines if line.startswith('# '))
    reader = csv.DictReader(line for line in lines if not line.startswith('# '))
    missing = set(COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise ValueError(
            f'{path}: no column {", ".join(sorted(missing))}: '
            'give a CSV file that tools/dev/benchmark wrote'
        )
    return [_row(record) for record in reader], about


def _row(record: Mapping[str, str]) -> Row:
    def summary(*names: str) -> Summary:
        return Summary(*(float(record[name]) for name in names))

    return Row(
        case=Case(**{name: kind(record[name]) for name, kind in CASE_TYPES.items()}),
        groups=tuple(filter(None, record['groups'].split(';'))),
        contender=record['contender'],
        part=record['part'],
        unit=record['unit'],
        value=summary('median', 'q1', 'q3'),
        ratio=summary('ratio', 'ratio_q1', 'ratio_q3') if record['ratio'] else None,
        repetitions=int(record['repetitions']),
        anchors=int(record['anchors']),
    )
