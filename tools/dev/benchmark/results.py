"""Measurements as a table (a pandas DataFrame), and the CSV file that keeps it.

Each row is one part of one contender's work in one case. Its columns are ``groups``
(sections of the report, joined by ``;``), the fields of :class:`.cases.Case`,
``anchors`` (per image), ``contender``, ``part`` (``forward``, ``backward``, ``total``,
``peak_memory``; of a compiled head also ``compilation`` and ``graphs``), ``unit``
(``s``, ``MB`` for 10⁶ bytes, ``n``), median and quartiles of the value, median and
quartiles of its ratio to mmdet's own head (paired by repetition; NaN where that was not
measured), and ``repetitions``.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pandas as pd

from mmdet_consistent.utils import atomic

from .cases import Case

MEMORY, COMPILATION, GRAPHS = 'peak_memory', 'compilation', 'graphs'
DEFAULTS = {field.name: field.default for field in fields(Case)}
CASE = list(DEFAULTS)
VALUE, RATIO = ('median', 'q1', 'q3'), ('ratio', 'ratio_q1', 'ratio_q3')
OTHERS = ('anchors', 'contender', 'part', 'unit', *VALUE, *RATIO, 'repetitions')
COLUMNS = ['groups', *CASE, *OTHERS]


def write_csv(path: Path, rows: pd.DataFrame, about: Mapping[str, str]) -> None:
    """Write all rows; ``about`` (machine, versions) precedes them as comments."""
    comments = ''.join(f'# {key}: {value}\n' for key, value in about.items())
    text = comments + rows.to_csv(index=False, float_format='%.5g')
    atomic.write(path, text.encode())


def read_csv(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read the rows and comments that :func:`write_csv` wrote.

    A file without some field of the case was written before the field existed, so
    that its default holds.

    Raises:
        ValueError: If another column is missing.
    """
    lines = path.read_text(encoding='utf-8').splitlines()
    about = dict(line[2:].split(': ', 1) for line in lines if line.startswith('# '))
    rows = pd.read_csv(path, comment='#')
    missing = {'groups', *OTHERS} - set(rows.columns)
    if missing:
        raise ValueError(
            f'{path} has no column {", ".join(sorted(missing))}: use a CSV file that '
            'tools/dev/benchmark wrote'
        )
    return rows.assign(**{k: v for k, v in DEFAULTS.items() if k not in rows})[
        COLUMNS
    ], about


def in_group(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    """Return the rows of one section of the report."""
    return rows[[group in groups.split(';') for groups in rows['groups']]]
