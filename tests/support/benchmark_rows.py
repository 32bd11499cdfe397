"""Measurements made up for the benchmark's tests."""

from dataclasses import asdict

import pandas as pd

from tools.dev.benchmark.cases import Case
from tools.dev.benchmark.results import COLUMNS, MEMORY, RATIO, VALUE


def row(
    contender='consistent',
    part='total',
    ratio=0.4,
    spread=0.0,
    value=0.1,
    groups='head_loss',
    repetitions=9,
    anchors=1000,
    **case,
):
    """Return a row whose quartiles lie ``spread`` (a fraction) around the medians."""
    around = 1.0, 1 - spread, 1 + spread
    return dict(
        asdict(Case(**case)),
        groups=groups,
        anchors=anchors,
        contender=contender,
        part=part,
        unit='MB' if part == MEMORY else 's',
        repetitions=repetitions,
        **dict(zip(VALUE, (value * x for x in around))),
        **dict(zip(RATIO, (ratio * x for x in around))),
    )


def table(*rows):
    """Return a table of rows."""
    return pd.DataFrame(rows, columns=COLUMNS)


def growing(dimension, sizes, seconds, megabytes, contender='consistent'):
    """Return the rows of one growth series; ``anchors`` is set apart from the case."""
    rows = []
    for size, time, memory in zip(sizes, seconds, megabytes):
        options = dict(groups=f'growth:{dimension}', contender=contender)
        if dimension == 'anchors':
            options.update(anchors=size, height=size, width=size)
        else:
            options[dimension] = size
        rows.append(row(part='total', value=time, **options))
        rows.append(row(part=MEMORY, value=memory, **options))
    return rows
