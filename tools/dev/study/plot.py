"""The plot of a table: every seed's AP, and differences over the IoU threshold."""

from collections.abc import Sequence
from pathlib import Path

from .numbers import Row
from .report import Runs

# Okabe and Ito's colours: told apart with any colour vision. Where they repeat, the
# marker changes.
PALETTE = ['#555555', '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9']
METRICS = ['AP', *(f'AP{iou}' for iou in range(50, 100, 10))]


def draw(runs: Runs, rows: Sequence[Row], title: str, path: Path) -> None:
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

    colours = {row.name: PALETTE[i % len(PALETTE)] for i, row in enumerate(rows)}
    markers = {row.name: 'os^'[i // len(PALETTE) % 3] for i, row in enumerate(rows)}
    many = len(rows) > 6
    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(13, 5.5) if many else (10, 4.2),
        layout='constrained',
        width_ratios=(2, 3),
    )
    seeds = sorted({seed for row in rows for seed in row.seeds})
    for seed in seeds:  # a thin line joins what is paired
        present = [i for i, row in enumerate(rows) if seed in row.seeds]
        aps = [runs[rows[i].name][seed]['metrics']['AP'] for i in present]
        left.plot(present, aps, color='#bbbbbb', lw=0.8, zorder=1)
        for i, ap in zip(present, aps):
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

    compared = [row for row in rows if row.differences]
    for i, row in enumerate(compared):
        shift = min(0.12, 0.7 / len(compared)) * (i - (len(compared) - 1) / 2)
        found = [row.differences[metric] for metric in METRICS]
        right.errorbar(
            [k + shift for k in range(len(METRICS))],
            [estimate.mean for estimate in found],
            yerr=[estimate.half_width or 0 for estimate in found],
            fmt=markers[row.name],
            ms=4,
            capsize=2 if many else 3,
            color=colours[row.name],
            label=row.name,
        )
    right.axhline(0, color='k', lw=0.8)
    right.set_xticks(range(len(METRICS)), METRICS)
    right.set_ylabel('difference to the baseline')
    right.set_title('paired difference, 95 % interval', fontsize=10)
    if compared:
        right.legend(fontsize=8, ncols=2 if many else 1)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)
