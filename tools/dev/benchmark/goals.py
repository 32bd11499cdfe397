"""The project's performance targets, and verdicts on whether they are met."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .cases import DETECTORS, OURS, REFERENCE
from .detectors import Cost
from .growth import DIMENSIONS, fit_growth, growth_points
from .results import MEMORY, in_group

# Section, part, description, highest ratio to mmdet's head.
RATIOS = (
    ('head_loss', 'total', 'head loss, forward + backward', 0.5),
    ('head_loss', MEMORY, 'head loss, peak memory', 1.0),
    ('train_step', 'total', 'training step', 1.0),
    ('inference', 'total', 'inference', 1.01),
)
# The same of single cases among the settings: fields of the case, in words, highest
# ratio of the head loss.
SETTINGS = (
    (dict(detector='retinanet', classes=1), '1 class', 0.8),
    (dict(detector='retinanet', classes=3), '3 classes', 0.8),
    (dict(detector='ssd', ground_truths=200), '200 ground truths', 0.6),
)
# The measured exponent of linear growth may exceed 1 by this much.
EXPONENT_SLACK = 0.05
# What is measured, its target, its value, the verdict.
Verdict = tuple[str, str, str, str]


def _word(met: bool) -> str:
    return 'met' if met else 'not met'


def _ratio_verdict(row: Any, what: str, limit: float) -> Verdict:
    where = 'CUDA' if row.device == 'cuda' else f'threads: {row.threads}'
    value, verdict = f'{row.ratio:.2f}×', _word(row.ratio <= limit)
    if row.part != MEMORY:
        value += f' ({row.ratio_q1:.2f}–{row.ratio_q3:.2f})'
    if row.ratio_q1 <= limit < row.ratio_q3:
        verdict += ', within noise'
    name = f'{DETECTORS[row.detector]}: {what} ({where})'
    return name, f'≤ {limit:.2f}×', value, verdict


def _ours(rows: pd.DataFrame, group: str, part: str) -> pd.DataFrame:
    found = in_group(rows, group).dropna(subset=['ratio'])
    return found[(found['part'] == part) & (found['contender'] == OURS)]


def _ratio_verdicts(rows: pd.DataFrame) -> list[Verdict]:
    verdicts = [
        _ratio_verdict(row, what, limit)
        for group, part, what, limit in RATIOS
        for row in _ours(rows, group, part).itertuples()
    ]
    settings = _ours(rows, 'settings', 'total')
    for fields, words, limit in SETTINGS:
        chosen = settings[(settings[list(fields)] == pd.Series(fields)).all(axis=1)]
        verdicts += [
            _ratio_verdict(row, f'head loss, {words}', limit)
            for row in chosen.itertuples()
        ]
    return verdicts


def _growth_verdicts(rows: pd.DataFrame) -> list[Verdict]:
    verdicts = []
    for dimension, title in DIMENSIONS.items():
        points = growth_points(rows, dimension, OURS)
        reference = growth_points(rows, dimension, REFERENCE)
        if len(points) < 2:
            continue
        sizes = f'{points.index[0]:,} → {points.index[-1]:,} {title}'
        _, exponents = fit_growth(points)
        for what, part in (('time', 'total'), ('memory', MEMORY)):
            value = f'size^{exponents[part]:.2f}'
            if len(reference) > 1 and dimension != 'stages':
                value += f' (mmdet: {fit_growth(reference)[1][part]:.2f})'
            verdict = _word(exponents[part] <= 1 + EXPONENT_SLACK)
            name = f'RetinaNet: {what}, {sizes}'
            verdicts.append((name, 'linear: size^1', value, verdict))
    return verdicts


def _cost_verdicts(costs: Sequence[Cost]) -> list[Verdict]:
    reference = {c.detector: c.parameters for c in costs if c.contender == REFERENCE}
    verdicts = []
    for cost in costs:
        if cost.contender == OURS:
            more = cost.parameters / reference[cost.detector] - 1
            name = f'{DETECTORS[cost.detector]}: parameters'
            verdicts.append(
                (name, '< +1 %', f'{100 * more:+.2f} %', _word(more < 0.01))
            )
    return verdicts


def verdicts(rows: pd.DataFrame, costs: Sequence[Cost]) -> list[Verdict]:
    """Judge every target for which there are rows or costs."""
    return _ratio_verdicts(rows) + _cost_verdicts(costs) + _growth_verdicts(rows)
