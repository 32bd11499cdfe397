"""Rows of measurements as Markdown."""

from collections.abc import Mapping, Sequence

from mmdet_consistent.utils.tables import markdown_table
from mmdet_consistent.utils.timing import Summary

from .cases import Case
from .compare import Change
from .contenders import REFERENCE
from .cost import COST_SIDES, Cost
from .goals import OURS, Verdict
from .growth import DIMENSIONS, fit_growth, growth_points
from .history import Revision
from .profiling import Operation
from .results import COMPILATION, GRAPHS, MEMORY, Row

NAMES = dict(retinanet='RetinaNet', ssd='SSD')
SECTIONS = dict(
    head_loss='Head loss',
    train_step='Training step',
    inference='Inference',
    postprocess='Post-processing alone',
    modes='torch.compile and channels-last',
    custom='Asked for',
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
    'in the same process (`tools/dev/benchmark --history`).'
)


def seconds(value: float) -> str:
    """Three digits, in milliseconds below a second."""
    return f'{1000 * value:.3g} ms' if value < 0.9995 else f'{value:.3g} s'


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
    names = {part: None for rows in contenders.values() for part in rows}
    timed = [name for name in names if name in ('forward', 'backward', 'total')]
    header = ['', *timed, f'total / {REFERENCE}']
    if MEMORY in names:
        header += ['peak memory', f'peak / {REFERENCE}']
    if COMPILATION in names:
        header.append('compilation')
    lines = []
    for contender, rows in contenders.items():
        line = [contender, *(seconds(rows[part].value.median) for part in timed)]
        ratio = rows['total'].ratio
        line.append(times(ratio) if ratio else '–')
        if MEMORY in names:
            memory = rows[MEMORY]
            line.append(f'{memory.value.median:.1f} MB')
            line.append(times(memory.ratio) if memory.ratio else '–')
        if COMPILATION in rows:
            graphs = round(rows[GRAPHS].value.median)
            line.append(f'{seconds(rows[COMPILATION].value.median)}, {graphs} graphs')
        elif COMPILATION in names:
            line.append('')
        lines.append(line)
    return markdown_table(header, lines)


def section(rows: Sequence[Row], group: str) -> list[str]:
    """The paragraphs of a group: a line and a table for every case."""
    chosen = [row for row in rows if group in row.groups]
    paragraphs = [f'## {SECTIONS[group]}'] if chosen else []
    for case, contenders in by_case(chosen).items():
        anchors = next(iter(contenders.values()))['total'].anchors
        paragraphs += [describe(case, anchors) + ':', case_table(contenders)]
        paragraphs += mode_notes(contenders)
    return paragraphs


def mode_notes(contenders: dict[str, dict[str, Row]]) -> list[str]:
    """What a mode did to the same head without it."""
    notes = []
    for name, rows in contenders.items():
        head, _, mode = name.partition('+')
        if not mode or head not in contenders:
            continue
        factor = rows['total'].value.median / contenders[head]['total'].value.median
        notes.append(
            f'With {mode}, {head} takes {factor:.2f}× the time it takes without.'
        )
    return notes


def settings_section(rows: Sequence[Row]) -> list[str]:
    """One line a setting."""
    chosen = [row for row in rows if 'settings' in row.groups]
    if not chosen:
        return []
    lines = []
    for case, contenders in by_case(chosen).items():
        lines.append([describe(case, contenders[REFERENCE]['total'].anchors)])
        for name in (REFERENCE, OURS):
            lines[-1].append(seconds(contenders[name]['total'].value.median))
        ours = contenders[OURS]
        lines[-1] += [times(ours['total'].ratio), times(ours[MEMORY].ratio)]
    header = ['head loss', REFERENCE, OURS, 'time', 'peak memory']
    return ['## Other settings', markdown_table(header, lines)]


def growth_section(rows: Sequence[Row], pictures: bool) -> list[str]:
    """A table, and a plot if there is one, for every dimension."""
    paragraphs = []
    for name, title in DIMENSIONS.items():
        lines = []
        for contender in (REFERENCE, OURS):
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
        paragraphs = ['## Growth', GROWTH_NOTE, *paragraphs]
    return paragraphs


def targets_section(verdicts: Sequence[Verdict]) -> list[str]:
    """Target, measured, met."""
    if not verdicts:
        return []
    header = [f'{OURS} against {REFERENCE}', 'target', 'measured', '']
    return ['## Targets', markdown_table(header, verdicts)]


def cost_section(costs: Sequence[Cost]) -> list[str]:
    """Parameters and multiply-adds, and what is more than mmdet's."""
    if not costs:
        return []
    reference = {cost.detector: cost for cost in costs if cost.contender == REFERENCE}
    lines = []
    for cost in costs:
        base = reference[cost.detector]
        lines.append(
            [
                NAMES[cost.detector],
                cost.contender,
                f'{cost.parameters / 1e6:.2f} M',
                f'{100 * (cost.parameters / base.parameters - 1):+.2f} %',
                f'{cost.flops / 1e9:.2f} G',
                f'{100 * (cost.flops / base.flops - 1):+.2f} %',
            ]
        )
    header = ['', '', 'parameters', '', 'multiply-adds', '']
    sides = ', '.join(f'{NAMES[k]} {v} pixels' for k, v in COST_SIDES.items())
    note = f"Counted by mmengine's `get_model_complexity_info` ({sides}, square)."
    return ['## Model cost', note, markdown_table(header, lines)]


def profile_section(profiles: Mapping[str, Sequence[Operation]]) -> list[str]:
    """The most expensive operations of each contender's head loss."""
    if not profiles:
        return []
    paragraphs = ['## Profile', PROFILE_NOTE]
    for contender, operations in profiles.items():
        lines = [
            [op.name, seconds(op.seconds), f'{100 * op.share:.0f} %', str(op.calls)]
            for op in operations
        ]
        header = [contender, 'self time', 'share', 'calls']
        paragraphs.append(markdown_table(header, lines))
    return paragraphs


def history_section(revisions: Sequence[Revision]) -> list[str]:
    """What each change bought, oldest first."""
    if not revisions:
        return []
    header = ['revision', 'change', 'forward', 'backward', 'both', 'peak memory']
    lines = [
        [r.revision, r.subject, *(f'{value:.2f}×' for value in r[2:])]
        for r in revisions
    ]
    return ['## What each change bought', HISTORY_NOTE, markdown_table(header, lines)]


def compare_section(changes: Sequence[Change], shown: int = 20) -> list[str]:
    """The rows that changed beyond noise, worst first."""
    moved = [change for change in changes if change.verdict != 'same']
    if not changes:
        return ['## Compared', 'The two measurements have no case in common.']
    note = (
        f'{len(changes)} figures compared (each as a ratio to {REFERENCE} in its own '
        f'run): {len(changes) - len(moved)} the same within noise.'
    )
    if not moved:
        return ['## Compared', note]
    lines = [
        [
            change.verdict,
            f'{change.factor:.2f}×',
            f'±{100 * change.band:.0f} %',
            f'{change.old.ratio.median:.2f}× → {change.new.ratio.median:.2f}×',
            change.new.contender,
            f'{change.new.case.workload}, {change.new.part}',
            describe(change.new.case, change.new.anchors),
        ]
        for change in moved[:shown]
    ]
    header = ['', 'change', 'noise', 'ratio', 'contender', 'what', 'case']
    return ['## Compared', note, markdown_table(header, lines)]


def measurements(rows: Sequence[Row], pictures: bool) -> list[str]:
    """All sections that the rows alone can fill."""
    paragraphs = []
    for group in SECTIONS:
        paragraphs += section(rows, group)
    return paragraphs + settings_section(rows) + growth_section(rows, pictures)
