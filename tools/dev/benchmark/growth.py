"""Growth of time and memory with the size of the input, as numbers and as plots."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from .cases import OURS, REFERENCE
from .results import MEMORY, in_group

DIMENSIONS = dict(
    ground_truths='ground truths per image',
    anchors='anchors',
    batch='images per batch',
    stages='stages',
)
# Okabe and Ito's colours: told apart with any colour vision.
STYLES = {
    REFERENCE: dict(color='#D55E00', marker='s'),
    OURS: dict(color='#0072B2', marker='o'),
}


def growth_points(rows: pd.DataFrame, dimension: str, contender: str) -> pd.DataFrame:
    """Return ``total`` (s) and ``peak_memory`` (MB) by size, smallest size first.

    Where two devices were measured, only those of the first count.
    """
    rows = in_group(rows, f'growth:{dimension}')
    rows = rows[rows['part'].isin(('total', MEMORY))]
    rows = rows[rows['device'].isin(rows['device'][:1])]
    rows = rows[rows['contender'] == contender]
    return rows.pivot(index=dimension, columns='part', values='median')


def fit_growth(points: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Compare the ends of two or more points.

    Returns:
        Factors of growth, and as which power of the size that is.
    """
    factors = points.iloc[-1] / points.iloc[0]
    return factors, np.log(factors) / np.log(points.index[-1] / points.index[0])


def plot_growth(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw time and memory along every measured dimension.

    Args:
        rows: The measurements.
        folder: Folder to write ``speed_<dimension>.png`` to.

    Returns:
        The written files.
    """
    written = []
    for name, title in DIMENSIONS.items():
        lines = {who: growth_points(rows, name, who) for who in STYLES}
        if len(lines[OURS]) > 1:
            path = folder / f'speed_{name}.png'
            _plot(lines, title, path)
            written.append(path)
    return written


def _plot(lines: dict[str, pd.DataFrame], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout='constrained')
    parts = {'total': 'forward + backward (s)', MEMORY: 'peak memory (MB)'}
    for axis, (part, label) in zip(axes, parts.items()):
        for who, points in lines.items():
            if len(points):
                axis.loglog(points[part], label=who, **STYLES[who])
        ours = lines[OURS][part]
        linear = ours.iloc[0] * ours.index / ours.index[0]
        axis.loglog(ours.index, linear, '--', color='0.6', lw=1, label='linear')
        axis.set(xticks=ours.index, xlabel=title)
        axis.xaxis.set_major_formatter(StrMethodFormatter('{x:,.0f}'))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(label, fontsize=10)
        axis.grid(which='both', color='0.92')
    axes[0].legend(frameon=False)
    partial = path.with_name(path.name + '.partial')
    figure.savefig(partial, dpi=90, format='png', metadata={'Software': None})
    os.replace(partial, path)
    plt.close(figure)
