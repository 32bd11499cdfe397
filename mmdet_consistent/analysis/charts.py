"""Charts as plain values, and how they are drawn.

A chart holds axes, series and words. Its picture, the table behind the picture and
the text for readers who cannot see it all come from the same values.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

from ..utils import atomic

# Okabe and Ito's colours can be told apart with any colour vision. DARK is for dark
# backgrounds. A model keeps its colour in all figures.
LIGHT = ('#0072b2', '#d55e00', '#009e73', '#b4568f', '#8a6d00', '#5b5fc7')
DARK = ('#56b4e9', '#ff9b4a', '#2fc79a', '#ee9fcb', '#f0e442', '#a9acff')
INK, MUTED, GRID = '#1f2328', '#59636e', '#d1d9e0'
# CSS variables of the page that replace these colours.
VARIABLES = {colour: f'--m{i}' for i, colour in enumerate(LIGHT)}
VARIABLES.update({INK: '--ink', MUTED: '--muted', GRID: '--grid'})
DASHES = ('-', (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ('o', 's', '^', 'D')
SIZE = (4.4, 3.2)  # inches; text of 10 points stays readable on a phone
KINDS = dict(line='Line chart', bar='Bar chart', density='Density map')


class Series(NamedTuple):
    """One line or one set of bars.

    Attributes:
        model: Index of the model, for its colour and the page's switches.
        name: Name in the legend and in the table.
        x: Values, or the categories of bars.
        y: Values, NaN where there is none. For a density map: weights (X, Y) by bin.
        variant: Dash pattern, to tell several lines of a model apart.
    """

    model: int
    name: str
    x: Union[Sequence, NDArray]
    y: NDArray
    variant: int = 0


class Chart(NamedTuple):
    """A line chart, bar chart or density map.

    Attributes:
        key: File name, and anchor in the page.
        title: Heading.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        series: The data.
        kind: ``line``, ``bar`` or ``density`` (of one series).
        axes: Limits and scales, as for matplotlib's ``Axes.set``.
        diagonal: Draw y = x.
        digits: Decimals in the table.
    """

    key: str
    title: str
    xlabel: str
    ylabel: str
    series: list[Series]
    kind: str = 'line'
    axes: Mapping[str, Any] = {}
    diagonal: bool = False
    digits: int = 3

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the numbers. Of a density map, sums by quarters."""
        if self.kind == 'density':
            grid = self.series[0].y
            sums = grid.reshape(4, len(grid) // 4, 4, -1).sum(axis=(1, 3))
            edges = [f'{i / 4:.2f}–{(i + 1) / 4:.2f}' for i in range(4)]
            rows = [[e, *[number(v, 0) for v in row]] for e, row in zip(edges, sums)]
            return [f'{self.xlabel} ↓  {self.ylabel} →', *edges], rows
        columns = [[x if isinstance(x, str) else f'{x:.3f}' for x in self.series[0].x]]
        columns += [[number(y, self.digits) for y in s.y] for s in self.series]
        header = [self.xlabel, *[series.name for series in self.series]]
        return header, [list(row) for row in zip(*columns)]

    def alt(self) -> str:
        """Describe the chart in words: start, end and peak of each series."""
        words = [f'{KINDS[self.kind]}, {self.ylabel} against {self.xlabel}.']
        words += [f'{series.name}: {self._describe(series)}.' for series in self.series]
        return ' '.join(words)

    def _describe(self, series: Series) -> str:
        if self.kind == 'density':
            return f'{series.y.sum():.0f} in all'
        texts = [number(value, self.digits) for value in series.y]
        known = np.flatnonzero(~np.isnan(series.y)).tolist()
        if not known:
            return 'no data'
        if self.kind == 'bar':
            return ', '.join(f'{series.x[i]} {texts[i]}' for i in known)
        first, last, top = known[0], known[-1], int(np.nanargmax(series.y))
        return (
            f'{texts[first]} at {series.x[first]:.2f}, {texts[last]} at '
            f'{series.x[last]:.2f}, highest {texts[top]} at {series.x[top]:.2f}'
        )


def number(value: float, digits: int = 3) -> str:
    """Format a number for a table, NaN as a dash."""
    return '–' if np.isnan(value) else f'{value:.{digits}f}'


def draw(chart: Chart) -> Any:
    """Draw a chart as a matplotlib figure in which each series has its own id."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout='constrained')
    axis = figure.add_subplot()
    dict(line=_lines, bar=_bars, density=_density)[chart.kind](axis, chart)
    if chart.diagonal:
        axis.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (2, 2)), zorder=1)
    axis.set_xlabel(chart.xlabel, color=INK)
    axis.set_ylabel(chart.ylabel, color=INK)
    axis.set(**chart.axes)
    axis.tick_params(colors=MUTED, labelcolor=INK)
    axis.grid(visible=True, color=GRID, lw=0.6)
    axis.xaxis.grid(visible=chart.kind != 'bar')
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)
    axis.spines[['left', 'bottom']].set_color(MUTED)
    if chart.kind != 'density':
        _legend(figure, chart)
    return figure


def _gid(chart: Chart, i: int, part: Union[int, str] = '') -> str:
    """Return the id of a part of series i, which also names the model."""
    return f'{chart.key}__m{chart.series[i].model}__{i}_{part}'


def _legend(figure: Any, chart: Chart) -> None:
    """Add a legend above the axes whose entries follow the page's switches."""
    long = max(len(series.name) for series in chart.series) > 18
    legend = figure.legend(
        loc='outside upper left',
        ncols=1 if long else min(2, len(chart.series)),
        frameon=False,
        labelcolor=INK,
        fontsize=9 if len(chart.series) < 5 else 8,
        borderpad=0,
        labelspacing=0.2,
    )
    for i, (key, name) in enumerate(zip(legend.legend_handles, legend.texts)):
        key.set_gid(_gid(chart, i, 'key'))
        name.set_gid(_gid(chart, i, 'name'))


def _colour(series: Series) -> str:
    return LIGHT[series.model % len(LIGHT)]


def _lines(axis: Any, chart: Chart) -> None:
    for i, series in enumerate(chart.series):
        axis.plot(
            series.x,
            series.y,
            color=_colour(series),
            ls=DASHES[series.variant % len(DASHES)],
            marker=MARKERS[series.model % len(MARKERS)],
            markevery=max(1, len(series.x) // 20),
            ms=3.5,
            lw=1.7,
            label=series.name,
            gid=_gid(chart, i),
        )


def _bars(axis: Any, chart: Chart) -> None:
    width = 0.8 / len(chart.series)
    names = list(chart.series[0].x)
    for i, series in enumerate(chart.series):
        left = np.arange(len(names)) - 0.4 + (i + 0.5) * width
        heights, colour = np.nan_to_num(series.y), _colour(series)
        bars = axis.bar(left, heights, width * 0.92, color=colour, label=series.name)
        for j, bar in enumerate(bars):
            bar.set_gid(_gid(chart, i, j))
    labels = [textwrap.fill(name, 12) for name in names]
    axis.set_xticks(range(len(names)), labels, fontsize=9)


def _density(axis: Any, chart: Chart) -> None:
    from matplotlib.colors import to_rgba

    grid = np.log1p(chart.series[0].y).T
    image = np.full((*grid.shape, 4), to_rgba(_colour(chart.series[0])))
    image[..., 3] = grid / max(grid.max(), 1e-12)
    axis.imshow(
        image, origin='lower', extent=(0, 1, 0, 1), aspect='auto', interpolation='none'
    )


def save(chart: Chart, folder: Path) -> str:
    """Write a chart as SVG and PNG files, and return the SVG's text."""
    import matplotlib

    settings: Any = {
        'svg.fonttype': 'none',
        'svg.hashsalt': chart.key,
        'font.family': 'sans-serif',
        'font.size': 10,
        'axes.unicode_minus': False,
    }
    about = dict(Title=chart.alt(), Date=None)
    svg, png = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(settings):
        figure = draw(chart)
        figure.savefig(svg, format='svg', transparent=True, metadata=about)
        figure.set_layout_engine('none')  # keeps the layout of the first
        figure.savefig(png, format='png', dpi=144)
    atomic.write(folder / f'{chart.key}.svg', svg.getvalue())
    atomic.write(folder / f'{chart.key}.png', png.getvalue())
    return svg.getvalue().decode()


def inline_svg(key: str, text: str) -> str:
    """Return a chart's SVG for the page.

    Colours become CSS variables, series get their model's class, and ids, which are
    the same in all files (such as "figure_1"), begin with the chart's key.
    """
    text = text[text.index('<svg') :].replace('<svg', '<svg role="img"', 1)
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f'var({variable})')
    text = re.sub(r'(id="[\w.-]+?__m(\d+)__\w+")', r'\1 class="of-m\2"', text)
    text = re.sub(rf'\bid="(?!{re.escape(key)}__)', f'id="{key}-', text)
    return re.sub(r'(href="#|url\(#)', rf'\g<1>{key}-', text)
