"""How time and memory grow with the size of the input."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .results import MEMORY, Row

DIMENSIONS = dict(
    ground_truths='ground truths an image',
    anchors='anchors',
    batch='images in a batch',
    stages='stages',
)


class Point(NamedTuple):
    """One size: seconds of forward and backward, 10⁶ bytes at the peak."""

    size: int
    seconds: float
    megabytes: float


class Growth(NamedTuple):
    """From the smallest to the largest size: factors, and exponents of the size."""

    time_factor: float
    time_exponent: float
    memory_factor: float
    memory_exponent: float


def size_of(row: Row, dimension: str) -> int:
    """The row's size in one of :data:`DIMENSIONS`."""
    return row.anchors if dimension == 'anchors' else getattr(row.case, dimension)


def growth_points(rows: Sequence[Row], dimension: str, contender: str) -> list[Point]:
    """The measurements along one dimension, smallest size first.

    Where two devices were measured, those of the first.
    """
    parts: dict[int, dict[str, float]] = {}
    series = [row for row in rows if f'growth:{dimension}' in row.groups]
    for row in series:
        if (row.contender, row.case.device) == (contender, series[0].case.device):
            size = size_of(row, dimension)
            parts.setdefault(size, {})[row.part] = row.value.median
    return [
        Point(size, found['total'], found[MEMORY])
        for size, found in sorted(parts.items())
    ]


def fit_growth(points: Sequence[Point]) -> Growth:
    """Compare the ends.

    Args:
        points: Two or more, of different sizes, smallest first.
    """
    first, last = points[0], points[-1]
    log_size = math.log(last.size / first.size)
    time = last.seconds / first.seconds
    memory = last.megabytes / first.megabytes
    return Growth(time, math.log(time) / log_size, memory, math.log(memory) / log_size)
