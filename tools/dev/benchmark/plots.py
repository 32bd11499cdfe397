"""Growth as log-log plots."""

import os
from collections.abc import Sequence
from pathlib import Path

from .contenders import REFERENCE
from .growth import DIMENSIONS, growth_points
from .results import Row

# Okabe and Ito's colours: told apart with any colour vision.
STYLES = {REFERENCE: ('#D55E00', 's'), 'consistent': ('#0072B2', 'o')}


def plot_growth(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw time and memory along every dimension that was measured.

    Args:
        rows: The measurements.
        folder: Where ``speed_<dimension>.png`` are written.

    Returns:
        The files.
    """
    written = []
    for name, title in DIMENSIONS.items():
        lines = {who: growth_points(rows, name, who) for who in STYLES}
        if len(lines['consistent']) > 1:
            path = folder / f'speed_{name}.png'
            _plot(lines, title, path)
            written.append(path)
    return written


def _plot(lines: dict[str, list], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout='constrained')
    panels = (
        (axes[0], 'seconds', 1000, 'forward + backward (ms)'),
        (axes[1], 'megabytes', 1, 'peak memory (MB)'),
    )
    for axis, field, unit, label in panels:
        values = []
        for who, points in lines.items():
            if not points:
                continue
            colour, marker = STYLES[who]
            sizes = [point.size for point in points]
            values = [unit * getattr(point, field) for point in points]
            axis.plot(sizes, values, marker=marker, color=colour, label=who)
        # Linear growth from the last contender's first point.
        linear = [values[0] * size / sizes[0] for size in sizes]
        axis.plot(sizes, linear, '--', color='0.6', lw=1, label='linear')
        axis.set_xscale('log')
        axis.set_yscale('log')
        axis.set_xticks(sizes)
        axis.xaxis.set_major_formatter(StrMethodFormatter('{x:,.0f}'))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(title)
        axis.set_title(label, fontsize=10)
        axis.grid(which='both', color='0.92')
    axes[0].legend(frameon=False)
    partial = path.with_name(path.name + '.partial')
    figure.savefig(partial, dpi=90, format='png', metadata={'Software': None})
    os.replace(partial, path)
    plt.close(figure)
