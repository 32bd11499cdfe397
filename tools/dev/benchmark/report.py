"""Measurements as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mmdet_consistent.utils.tables import markdown_table

from .cases import DETECTORS, OURS, REFERENCE
from .detectors import COST_SIDES, Cost
from .goals import verdicts
from .growth import DIMENSIONS, fit_growth, growth_points
from .results import CASE, COMPILATION, GRAPHS, MEMORY, in_group

SECTIONS = dict(
    head_loss='Head loss',
    train_step='Training step',
    inference='Inference',
    postprocess='Post-processing alone',
    modes='torch.compile and channels-last',
    custom='Custom cases',
)
GROWTH_NOTE = (
    'Head loss of RetinaNet, forward and backward, one dimension at a time, one '
    'thread. The exponent is that between the smallest and the largest size: 1 is '
    f'linear. {REFERENCE} has one stage throughout.'
)
PROFILE_NOTE = (
    "RetinaNet's head loss at the targets' size, one forward and backward, one "
    'thread, by `torch.profiler`.'
)
HISTORY_NOTE = (
    f"RetinaNet's head loss with two stages at earlier revisions, against {REFERENCE} "
    'in the same process (`python -m tools.dev.benchmark --history`).'
)


def seconds(value: float) -> str:
    """Format a time with three digits, in milliseconds below a second."""
    return f'{1000 * value:.3g} ms' if value < 0.9995 else f'{value:.3g} s'


def times(row: pd.Series) -> str:
    """Format a ratio with its quartiles."""
    if pd.isna(row['ratio']):
        return '–'
    spread = f' ({row["ratio_q1"]:.2f}–{row["ratio_q3"]:.2f})'
    return f'{row["ratio"]:.2f}×{spread if row["ratio_q1"] != row["ratio_q3"] else ""}'


def describe(case: Any) -> str:
    """Describe a case, or the case of a row, in one line."""
    threads = f'{case.threads} thread{"s" if case.threads > 1 else ""}'
    where = 'CUDA' if case.device == 'cuda' else threads
    stages = '' if case.stages == 2 else f', {case.stages} stages'
    shapes = ' of varied shapes' if case.shapes == 'varied' else ''
    anchors = f' ({case.anchors:,} anchors each)' if hasattr(case, 'anchors') else ''
    return (
        f'{DETECTORS[case.detector]}, {case.batch} × {case.height}x{case.width} pixels'
        f'{shapes}{anchors}, {case.classes} classes, {case.ground_truths} ground '
        f'truths each{stages}, {where}, {case.dtype}'
    )


def by_case(
    rows: pd.DataFrame, group: str
) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """Yield a group's cases: a description, and contender to its rows by part."""
    for _, case in in_group(rows, group).groupby(CASE, sort=False):
        contenders = case.groupby('contender', sort=False)
        parts = {name: found.set_index('part') for name, found in contenders}
        yield describe(next(case.itertuples())), parts


def case_table(contenders: Mapping[str, pd.DataFrame]) -> str:
    """Render one case: contenders by parts, and their ratio to mmdet's head."""
    names = {part for rows in contenders.values() for part in rows.index}
    timed = [name for name in ('forward', 'backward', 'total') if name in names]
    header = ['', *timed, f'total / {REFERENCE}']
    if MEMORY in names:
        header += ['peak memory', f'peak / {REFERENCE}']
    if COMPILATION in names:
        header.append('compilation')
    lines = []
    for contender, rows in contenders.items():
        line = [contender, *(seconds(rows.loc[part, 'median']) for part in timed)]
        line.append(times(rows.loc['total']))
        if MEMORY in names:
            memory = rows.loc[MEMORY]
            line += [f'{memory["median"]:.1f} MB', times(memory)]
        if COMPILATION in rows.index:
            took, graphs = rows.loc[[COMPILATION, GRAPHS], 'median']
            line.append(f'{seconds(took)}, {graphs:.0f} graphs')
        lines.append(line + [''] * (len(header) - len(line)))
    return markdown_table(header, lines)


def section(rows: pd.DataFrame, group: str) -> list[str]:
    """Render a group's paragraphs: a line and a table for every case."""
    paragraphs = []
    for case, contenders in by_case(rows, group):
        paragraphs += [f'{case}:', case_table(contenders)]
        total = {
            name: found.loc['total', 'median'] for name, found in contenders.items()
        }
        for name in contenders:
            head, _, mode = name.partition('+')
            if mode and head in total:
                paragraphs.append(
                    f'With {mode}, {head} takes {total[name] / total[head]:.2f}× the '
                    'time it takes without.'
                )
    return [f'## {SECTIONS[group]}', *paragraphs] if paragraphs else []


def settings_section(rows: pd.DataFrame) -> list[str]:
    """Render one line per setting."""
    lines = []
    for case, contenders in by_case(rows, 'settings'):
        line = [case]
        for name in (REFERENCE, OURS):
            known = name in contenders
            line.append(
                seconds(contenders[name].loc['total', 'median']) if known else '–'
            )
        for part in ('total', MEMORY):
            line.append(
                times(contenders[OURS].loc[part]) if OURS in contenders else '–'
            )
        lines.append(line)
    header = ['head loss', REFERENCE, OURS, 'time', 'peak memory']
    return ['## Other settings', markdown_table(header, lines)] if lines else []


def growth_section(rows: pd.DataFrame, pictures: bool) -> list[str]:
    """Render a table for every measured dimension, with its plot if there is one."""
    paragraphs = []
    for name, title in DIMENSIONS.items():
        lines = []
        for who in (REFERENCE, OURS):
            points = growth_points(rows, name, who)
            for size, point in points.iterrows():
                megabytes = f'{point[MEMORY]:.1f} MB'
                lines.append([who, f'{size:,}', seconds(point['total']), megabytes])
            if len(points) > 1:
                line = [f'**{who}**', f'× {points.index[-1] / points.index[0]:.3g}']
                factors, exponents = fit_growth(points)
                for part in ('total', MEMORY):
                    line.append(f'× {factors[part]:.3g} (size^{exponents[part]:.2f})')
                lines.append(line)
        if lines:
            header = ['', title, 'forward + backward', 'peak memory']
            paragraphs += [f'### {title}', markdown_table(header, lines)]
            paragraphs += [f'![{title}](speed_{name}.png)'] if pictures else []
    return ['## Growth', GROWTH_NOTE, *paragraphs] if paragraphs else []


def targets_section(rows: pd.DataFrame, costs: Sequence[Cost]) -> list[str]:
    """Render target, measurement and verdict."""
    lines = verdicts(rows, costs)
    header = [f'{OURS} against {REFERENCE}', 'target', 'measured', '']
    return ['## Targets', markdown_table(header, lines)] if lines else []


def cost_section(costs: Sequence[Cost]) -> list[str]:
    """Render parameters and multiply-adds, and what they exceed mmdet's by."""
    reference = {cost.detector: cost for cost in costs if cost.contender == REFERENCE}
    lines = []
    for detector, contender, parameters, flops in costs:
        more = parameters / reference[detector].parameters - 1
        slower = flops / reference[detector].flops - 1
        line = [DETECTORS[detector], contender]
        line += [f'{parameters / 1e6:.2f} M', f'{100 * more:+.2f} %']
        lines.append([*line, f'{flops / 1e9:.2f} G', f'{100 * slower:+.2f} %'])
    header = ['', '', 'parameters', '', 'multiply-adds', '']
    sides = ', '.join(f'{DETECTORS[k]} {v} pixels' for k, v in COST_SIDES.items())
    note = f"Counted by mmengine's `get_model_complexity_info` ({sides}, square)."
    return ['## Model cost', note, markdown_table(header, lines)] if costs else []


def profile_section(profiles: Mapping[str, Sequence[tuple]]) -> list[str]:
    """Render the most expensive operations of each contender's head loss."""
    paragraphs = ['## Profile', PROFILE_NOTE]
    for contender, operations in profiles.items():
        lines = [
            [name, seconds(spent), f'{100 * share:.0f} %', str(calls)]
            for name, spent, share, calls in operations
        ]
        header = [contender, 'self time', 'share', 'calls']
        paragraphs.append(markdown_table(header, lines))
    return paragraphs


def history_section(revisions: pd.DataFrame) -> list[str]:
    """Render the gain of each change, oldest first."""
    header = ['revision', 'change', 'forward', 'backward', 'both', 'peak memory']
    lines = [
        [revision, subject, *(f'{value:.2f}×' for value in ratios)]
        for revision, subject, *ratios in revisions.itertuples(index=False)
    ]
    return ['## Gain of each change', HISTORY_NOTE, markdown_table(header, lines)]


def compare_section(changes: pd.DataFrame, shown: int = 20) -> list[str]:
    """Render the rows that changed beyond noise, worst first."""
    if changes.empty:
        return ['## Comparison', 'The two measurements have no case in common.']
    moved = changes[changes['verdict'] != 'same']
    note = (
        f'{len(changes)} figures compared (each as a ratio to {REFERENCE} in its own '
        f'run): {len(changes) - len(moved)} the same within noise.'
    )
    lines = [
        [
            row.verdict,
            f'{row.factor:.2f}×',
            f'±{100 * row.noise:.0f} %',
            f'{row.ratio_old:.2f}× → {row.ratio:.2f}×',
            *(row.contender, f'{row.workload}, {row.part}', describe(row)),
        ]
        for row in moved[:shown].itertuples()
    ]
    header = ['', 'change', 'noise', 'ratio', 'contender', 'part', 'case']
    table = [markdown_table(header, lines)] if lines else []
    return ['## Comparison', note, *table]


def measurements(rows: pd.DataFrame, pictures: bool) -> list[str]:
    """Render all sections that the rows alone can fill."""
    paragraphs = [text for group in SECTIONS for text in section(rows, group)]
    return paragraphs + settings_section(rows) + growth_section(rows, pictures)
