"""Rows of measurements as Markdown."""

from collections.abc import Sequence
from dataclasses import replace

from ..analysis.side_by_side import markdown_table
from .cases import Case
from .contenders import REFERENCE
from .growth import DIMENSIONS, fit_growth, growth_points
from .results import MEMORY, Row
from .timing import Summary

NAMES = dict(retinanet='RetinaNet', ssd='SSD')
SECTIONS = dict(
    head_loss='Head loss',
    train_step='Training step',
    inference='Inference',
    postprocess='Post-processing alone',
    modes='torch.compile and channels-last',
    custom='Asked for',
)


def seconds(value: float) -> str:
    """Milliseconds, in three digits."""
    return f'{1000 * value:.3g} ms' if value < 10 else f'{value:.3g} s'


def times(summary: Summary) -> str:
    """A ratio with its quartiles."""
    if summary.q1 == summary.q3:
        return f'{summary.median:.2f}×'
    return f'{summary.median:.2f}× ({summary.q1:.2f}–{summary.q3:.2f})'


def describe(case: Case, anchors: int) -> str:
    """A case in one line."""
    threads = f'{case.threads} thread{"s" if case.threads > 1 else ""}'
    where = 'CUDA' if case.device == 'cuda' else threads
    stages = '' if case.stages == 2 else f', {case.stages} stages'
    return (
        f'{NAMES[case.detector]}, {case.batch} × {case.image} pixels '
        f'({anchors:,} anchors each), {case.classes} classes, '
        f'{case.ground_truths} ground truths each{stages}, {where}, {case.dtype}'
    )


def by_case(rows: Sequence[Row]) -> dict[Case, dict[str, dict[str, Row]]]:
    """Case to contender to part."""
    cases: dict = {}
    for row in rows:
        parts = cases.setdefault(row.case, {}).setdefault(row.contender, {})
        parts[row.part] = row
    return cases


def case_table(contenders: dict[str, dict[str, Row]]) -> str:
    """One case: contenders by parts, and their ratio to mmdet's head."""
    names = list(dict.fromkeys(part for rows in contenders.values() for part in rows))
    timed = [name for name in names if name != MEMORY]
    header = ['', *timed, f'total / {REFERENCE}']
    if MEMORY in names:
        header += ['peak memory', f'peak / {REFERENCE}']
    lines = []
    for contender, rows in contenders.items():
        line = [contender, *(seconds(rows[part].value.median) for part in timed)]
        ratio = rows['total'].ratio
        line.append(times(ratio) if ratio else '–')
        if MEMORY in names:
            memory = rows[MEMORY]
            line.append(f'{memory.value.median:.1f} MB')
            line.append(times(memory.ratio) if memory.ratio else '–')
        lines.append(line)
    return markdown_table(header, lines)


def section(rows: Sequence[Row], group: str) -> list[str]:
    """The paragraphs of a group: a line and a table for every case."""
    chosen = [row for row in rows if group in row.groups]
    paragraphs = [f'## {SECTIONS[group]}'] if chosen else []
    for case, contenders in by_case(chosen).items():
        anchors = next(iter(contenders.values()))['total'].anchors
        paragraphs += [describe(case, anchors) + ':', case_table(contenders)]
    return paragraphs


def settings_section(rows: Sequence[Row]) -> list[str]:
    """One line a setting."""
    chosen = [row for row in rows if 'settings' in row.groups]
    if not chosen:
        return []
    lines = []
    for case, contenders in by_case(chosen).items():
        lines.append([describe(case, contenders[REFERENCE]['total'].anchors)])
        for name in (REFERENCE, 'consistent'):
            lines[-1].append(seconds(contenders[name]['total'].value.median))
        ours = contenders['consistent']
        lines[-1] += [times(ours['total'].ratio), times(ours[MEMORY].ratio)]
    header = ['head loss', REFERENCE, 'consistent', 'time', 'peak memory']
    return ['## Other settings', markdown_table(header, lines)]


def growth_section(rows: Sequence[Row], pictures: bool) -> list[str]:
    """A table, and a plot if there is one, for every dimension."""
    paragraphs = []
    for name, title in DIMENSIONS.items():
        lines = []
        for contender in (REFERENCE, 'consistent'):
            points = growth_points(rows, name, contender)
            for point in points:
                lines.append(
                    [
                        contender,
                        f'{point.size:,}',
                        seconds(point.seconds),
                        f'{point.megabytes:.1f} MB',
                    ]
                )
            if len(points) > 1:
                fit = fit_growth(points)
                lines.append(
                    [
                        f'**{contender}**',
                        f'× {points[-1].size / points[0].size:.3g}',
                        f'× {fit.time_factor:.3g} (size^{fit.time_exponent:.2f})',
                        f'× {fit.memory_factor:.3g} (size^{fit.memory_exponent:.2f})',
                    ]
                )
        if not lines:
            continue
        header = ['', title, 'forward + backward', 'peak memory']
        paragraphs += [f'### {title}', markdown_table(header, lines)]
        if pictures:
            paragraphs.append(f'![{title}](speed_{name}.png)')
    if paragraphs:
        constant = growth_note(rows)
        paragraphs = ['## Growth', constant, *paragraphs]
    return paragraphs


def growth_note(rows: Sequence[Row]) -> str:
    """What stays the same while one dimension grows."""
    base = next(r.case for r in rows if any(g.startswith('growth') for g in r.groups))
    base = replace(base)
    return (
        f'Head loss of {NAMES[base.detector]}, one dimension at a time, '
        f'{base.threads} thread; mmdet has one stage throughout. The exponent is '
        'that between the smallest and the largest size: 1 is linear.'
    )
