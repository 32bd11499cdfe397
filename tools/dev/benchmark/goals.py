"""The house's targets, and whether a measurement meets them."""

from collections.abc import Sequence
from typing import NamedTuple

from mmdet_consistent.utils.timing import Summary

from .contenders import REFERENCE
from .cost import Cost
from .growth import DIMENSIONS, fit_growth, growth_points
from .results import MEMORY, Row

OURS = 'consistent'
# A measured exponent of a truly linear growth may be this much above 1.
EXPONENT_SLACK = 0.05
NAMES = dict(retinanet='RetinaNet', ssd='SSD')


class Verdict(NamedTuple):
    """One line of the targets' table."""

    what: str
    target: str
    measured: str
    verdict: str


def judge(summary: Summary, limit: float) -> str:
    """``'met'`` or ``'not met'`` by the median; said if the quartiles disagree."""
    verdict = 'met' if summary.median <= limit else 'not met'
    if summary.q1 <= limit < summary.q3:
        verdict += ', within noise'
    return verdict


def _ratio_verdicts(rows: Sequence[Row]) -> list[Verdict]:
    wanted = (
        ('head_loss', 'total', 'head loss, forward + backward', 0.5),
        ('head_loss', MEMORY, 'head loss, peak memory', 1.0),
        ('train_step', 'total', 'training step', 1.0),
        ('inference', 'total', 'inference', 1.01),
    )
    verdicts = []
    for group, part, what, limit in wanted:
        for row in rows:
            if (
                group not in row.groups
                or row.part != part
                or row.contender != OURS
                or row.ratio is None
            ):
                continue
            case = row.case
            where = 'CUDA' if case.device == 'cuda' else f'threads: {case.threads}'
            ratio = row.ratio
            measured = f'{ratio.median:.2f}×'
            if part != MEMORY:
                measured += f' ({ratio.q1:.2f}–{ratio.q3:.2f})'
            verdicts.append(
                Verdict(
                    f'{NAMES[case.detector]}: {what} ({where})',
                    f'≤ {limit:.2f}×',
                    measured,
                    judge(ratio, limit),
                )
            )
    return verdicts


def _growth_verdicts(rows: Sequence[Row]) -> list[Verdict]:
    verdicts = []
    for name, title in DIMENSIONS.items():
        points = growth_points(rows, name, OURS)
        if len(points) < 2:
            continue
        fit = fit_growth(points)
        reference = growth_points(rows, name, REFERENCE)
        ref = fit_growth(reference) if len(reference) > 1 else None
        ends = f'{points[0].size:,} → {points[-1].size:,} {title}'
        for what, exponent, ref_exponent in (
            ('time', fit.time_exponent, ref and ref.time_exponent),
            ('memory', fit.memory_exponent, ref and ref.memory_exponent),
        ):
            measured = f'size^{exponent:.2f}'
            if ref_exponent is not None and name != 'stages':
                measured += f' (mmdet: {ref_exponent:.2f})'
            verdicts.append(
                Verdict(
                    f'RetinaNet: {what}, {ends}',
                    'linear: size^1',
                    measured,
                    'met' if exponent <= 1 + EXPONENT_SLACK else 'not met',
                )
            )
    return verdicts


def _cost_verdicts(costs: Sequence[Cost]) -> list[Verdict]:
    reference = {c.detector: c.parameters for c in costs if c.contender == REFERENCE}
    verdicts = []
    for cost in costs:
        if cost.contender == OURS:
            more = cost.parameters / reference[cost.detector] - 1
            verdicts.append(
                Verdict(
                    f'{NAMES[cost.detector]}: parameters',
                    '< +1 %',
                    f'{100 * more:+.2f} %',
                    'met' if more < 0.01 else 'not met',
                )
            )
    return verdicts


def verdicts(rows: Sequence[Row], costs: Sequence[Cost]) -> list[Verdict]:
    """Every target that the rows (and costs) can speak to."""
    return _ratio_verdicts(rows) + _cost_verdicts(costs) + _growth_verdicts(rows)
