"""A study's page, CSV and picture."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from mmdet_consistent.utils.tables import markdown_table

from .numbers import METRICS, Estimate, Row


def signed(estimate: Optional[Estimate]) -> str:
    """A difference and its interval, as ``+1.2 ± 0.4``."""
    if estimate is None:
        return '–'
    if estimate.half_width is None:
        return f'{estimate.mean:+.1f}'
    return f'{estimate.mean:+.1f} ± {estimate.half_width:.1f}'


def values_table(rows: Sequence[Row], metrics: Sequence[str] = METRICS) -> str:
    """Mean of every metric, the difference of AP, positives and seeds."""
    header = ['', *metrics, 'ΔAP (95 %)', 'positives an image, by stage', 'seeds']
    lines = [
        [
            row.name,
            *(f'{row.values[metric].mean:.1f}' for metric in metrics),
            signed(row.differences.get('AP')),
            ', '.join(f'{p:.0f}' for p in row.positives) or '–',
            str(len(row.seeds)),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def differences_table(rows: Sequence[Row], metrics: Sequence[str] = METRICS) -> str:
    """Paired difference to the baseline of every metric, with its interval."""
    header = ['', *(f'Δ{metric}' for metric in metrics)]
    lines = [
        [row.name, *(signed(row.differences.get(metric)) for metric in metrics)]
        for row in rows
        if row.differences
    ]
    return markdown_table(header, lines)


def paper_table(
    rows: Sequence[Row], baseline: str, metrics: Sequence[str] = METRICS
) -> str:
    """The paper's figures, and its gain beside the one measured here."""
    metrics = [m for m in metrics if any(m in row.paper for row in rows)]
    base = next((row.paper for row in rows if row.name == baseline), {})
    header = ['', *metrics, 'ΔAP in the paper', 'ΔAP here']
    lines = []
    for row in rows:
        if not row.paper:
            continue
        gain = row.paper['AP'] - base['AP'] if base and row.name != baseline else None
        lines.append(
            [
                row.name,
                *(f'{row.paper[m]:.1f}' if m in row.paper else '–' for m in metrics),
                '–' if gain is None else f'{gain:+.1f}',
                signed(row.differences.get('AP')),
            ]
        )
    return markdown_table(header, lines)


def page(
    title: str,
    command: str,
    notes: Sequence[str],
    rows: Sequence[Row],
    baseline: str,
    picture: Optional[str] = None,
) -> str:
    """The study's page in Markdown.

    Args:
        title: Heading.
        command: The command that made it.
        notes: Paragraphs on what was trained and measured.
        rows: The rows.
        baseline: Name of the row that the others are compared with.
        picture: Path of the plot, relative to the page.

    Returns:
        The text.
    """
    parts = [f'# {title}', f'Made by `{command}`.', *notes, values_table(rows)]
    if any(row.differences for row in rows):
        parts += [
            f'Paired differences to `{baseline}` (same seed: same initial weights of '
            'what both have, same order of images, same flips), mean and 95 % '
            't-interval over the seeds that a row shares with it:',
            differences_table(rows),
        ]
    if picture:
        parts.append(f'![mean AP, and paired differences by IoU]({picture})')
    if any(row.paper for row in rows):
        parts += [
            '**The paper’s figures** (COCO val2017, full-size models; *not run here*):',
            paper_table(rows, baseline),
        ]
    return '\n\n'.join(parts) + '\n'


def boxes_page(
    title: str,
    command: str,
    note: str,
    facts: Mapping[str, Mapping[str, float]],
    rows: Sequence[Row],
) -> str:
    """The page on where anchors end up.

    Args:
        title: Heading.
        command: The command that made it.
        note: A paragraph on what was trained and measured.
        facts: Detector to fact to a mean over the seeds.
        rows: AP of a detector's first and last boxes; differences are those to the
            first row.

    Returns:
        The text.
    """
    names = list(next(iter(facts.values())))
    measured = markdown_table(
        ['', *facts],
        [[name, *(f'{facts[row][name]:.1f}' for row in facts)] for name in names],
    )
    parts = [
        f'# {title}',
        f'Made by `{command}`.',
        note,
        'First positives: anchors that the base detector’s assigner calls positive. '
        'Second positives: anchors with an IoU of at least 0.6 once refined. IoUs are '
        'times 100.',
        measured,
        'AP of the boxes after the first step alone, with the same scores, and of the '
        'final ones:',
        values_table(rows),
        differences_table(rows),
    ]
    return '\n\n'.join(parts) + '\n'


def csv_text(runs: Mapping[str, Mapping[int, dict]]) -> str:
    """Every run as one line: row, seed, metrics, positives by stage."""
    everything = [run for by_seed in runs.values() for run in by_seed.values()]
    metrics = list(dict.fromkeys(m for run in everything for m in run['metrics']))
    stages = max((len(run['positives']) for run in everything), default=0)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['row', 'seed', *metrics, *(f'pos_s{k}' for k in range(stages))])
    for name, by_seed in runs.items():
        for seed, run in sorted(by_seed.items()):
            positives = [f'{value:.1f}' for value in run['positives']]
            writer.writerow(
                [
                    name,
                    seed,
                    *(f'{run["metrics"][m]:.3f}' for m in metrics),
                    *positives,
                    *[''] * (stages - len(positives)),
                ]
            )
    return out.getvalue()


def draw(
    runs: Mapping[str, Mapping[int, dict]], rows: Sequence[Row], title: str, path: Path
) -> None:
    """Plot every seed's AP, and the paired differences over the IoU threshold.

    Args:
        runs: Row name to seed to a run.
        rows: The summary of ``runs``.
        title: Title of the picture.
        path: PNG file to write.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    # Okabe and Ito's colours: told apart with any colour vision. Where they come
    # again, the marker is another.
    palette = ['#555555', '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9']
    colours = {row.name: palette[i % len(palette)] for i, row in enumerate(rows)}
    markers = {row.name: 'os^'[i // len(palette) % 3] for i, row in enumerate(rows)}
    many = len(rows) > 6
    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(13, 5.5) if many else (10, 4.2),
        layout='constrained',
        width_ratios=(2, 3),
    )
    seeds = sorted({seed for row in rows for seed in row.seeds})
    for seed in seeds:  # one thin line joins what is paired
        there = [i for i, row in enumerate(rows) if seed in row.seeds]
        aps = [runs[rows[i].name][seed]['metrics']['AP'] for i in there]
        left.plot(there, aps, color='#bbbbbb', lw=0.8, zorder=1)
        for i, ap in zip(there, aps):
            name = rows[i].name
            left.scatter(i, ap, c=colours[name], marker=markers[name], s=16, zorder=2)
    for i, row in enumerate(rows):
        left.hlines(row.values['AP'].mean, i - 0.25, i + 0.25, colors='k', lw=2)
    names = [row.name for row in rows]
    turned = dict(rotation=60, ha='right', rotation_mode='anchor')
    left.set_xticks(range(len(rows)), names, **(turned if many else {'rotation': 20}))
    left.set_xlim(-0.5, len(rows) - 0.5)
    left.set_ylabel('AP')
    left.set_title('each seed, and the mean', fontsize=10)

    metrics = ['AP', *(f'AP{iou}' for iou in range(50, 100, 10))]
    compared = [row for row in rows if row.differences]
    for i, row in enumerate(compared):
        shift = min(0.12, 0.7 / len(compared)) * (i - (len(compared) - 1) / 2)
        found = [row.differences[metric] for metric in metrics]
        right.errorbar(
            [k + shift for k in range(len(metrics))],
            [estimate.mean for estimate in found],
            yerr=[estimate.half_width or 0 for estimate in found],
            fmt=markers[row.name],
            ms=4,
            capsize=2 if many else 3,
            color=colours[row.name],
            label=row.name,
        )
    right.axhline(0, color='k', lw=0.8)
    right.set_xticks(range(len(metrics)), metrics)
    right.set_ylabel('difference to the baseline')
    right.set_title('paired difference, 95 % interval', fontsize=10)
    if compared:
        right.legend(fontsize=8, ncols=2 if many else 1)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)
