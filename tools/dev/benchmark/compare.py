"""What got slower since an earlier measurement.

Only ratios to mmdet's own head are compared: it ran in the same minutes, so a
slower machine does not look like slower code. Its own times are not judged.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from mmdet_consistent.utils.timing import Summary

from .contenders import REFERENCE
from .results import MEMORY, Row

# A change of the median below this is noise, however steady the repetitions.
TIME_FLOOR = 0.05
MEMORY_FLOOR = 0.02


class Change(NamedTuple):
    """One row of the old and of the new measurement.

    Attributes:
        old: The old row.
        new: The new row.
        factor: New ratio / old ratio.
        band: Changes up to this fraction are noise.
        verdict: ``'slower'`` (``'larger'`` for memory), ``'faster'``
            (``'smaller'``) or ``'same'``.
    """

    old: Row
    new: Row
    factor: float
    band: float
    verdict: str


def relative_spread(summary: Summary) -> float:
    """Half the quartiles' distance, as a fraction of the median."""
    return (summary.q3 - summary.q1) / 2 / summary.median


def noise_band(old: Row, new: Row) -> float:
    """The fraction by which a ratio moves without a cause.

    The standard error of a median is about 0.93 times the quartiles' distance
    over the square root of the repetitions; twice that, of both measurements,
    and never less than the floor.
    """
    floor = MEMORY_FLOOR if new.part == MEMORY else TIME_FLOOR
    errors = [
        2 * 0.93 * 2 * relative_spread(row.ratio) / math.sqrt(row.repetitions)
        for row in (old, new)
    ]
    return max(floor, math.hypot(*errors))


def compare(old: Sequence[Row], new: Sequence[Row]) -> list[Change]:
    """Judge every row that both measurements have, the worst change first."""

    def key(row: Row) -> tuple:
        return row.case, row.contender, row.part

    known = {key(row): row for row in old if row.ratio}
    changes = []
    for row in new:
        before = known.get(key(row))
        if before is None or row.ratio is None or row.contender == REFERENCE:
            continue
        factor = row.ratio.median / before.ratio.median
        band = noise_band(before, row)
        worse, better = (
            ('larger', 'smaller') if row.part == MEMORY else ('slower', 'faster')
        )
        verdict = 'same'
        if factor > 1 + band:
            verdict = worse
        elif factor < 1 / (1 + band):
            verdict = better
        changes.append(Change(before, row, factor, band, verdict))
    return sorted(changes, key=lambda change: -change.factor)


def regressions(changes: Sequence[Change]) -> list[Change]:
    """The changes for the worse."""
    return [change for change in changes if change.verdict in ('slower', 'larger')]
