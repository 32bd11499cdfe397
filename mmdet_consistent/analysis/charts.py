"""Charts as data, drawn once for files and once for the page.

A chart is a plain value: axes, series, words. From it come the picture, the
table behind the picture and the text for those who don't see it, so the three
cannot disagree.
"""

import base64
import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's colours, told apart with any colour vision; the second row is
# for dark backgrounds. Models keep their colour through all figures.
LIGHT = ('#0072b2', '#d55e00', '#009e73', '#b4568f', '#8a6d00', '#5b5fc7')
DARK = ('#56b4e9', '#ff9b4a', '#2fc79a', '#ee9fcb', '#f0e442', '#a9acff')
INK, MUTED, GRID = '#1f2328', '#59636e', '#d1d9e0'
DASHES = ('-', (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ('o', 's', '^', 'D')
SIZE = (4.4, 3.2)  # inches; with 10 point text readable on a phone


class Series(NamedTuple):
    """One line or one set of bars.

    Attributes:
        model: Index of the model, for the colour and the page's switches.
        name: What the legend and the table call it.
        x: Values or, for bars, categories.
        y: Values; NaN where there is nothing.
        variant: Dash and marker, for several lines of a model.
    """

    model: int
    name: str
    x: Sequence
    y: NDArray
    variant: int = 0


class Chart(NamedTuple):
    """A chart; ``kind`` is ``line``, ``bar`` or ``density``.

    Attributes:
        key: File name and anchor in the page.
        title: Heading.
        caption: What is to be seen, and how it was worked out.
        xlabel: Horizontal axis.
        ylabel: Vertical axis.
        series: What is drawn. For ``density`` ``y`` is (X, Y), weights by bin.
        kind: How.
        xlim: Limits of the horizontal axis.
        ylim: Limits of the vertical axis.
        log: Logarithmic vertical axis.
        diagonal: Whether to draw y = x.
        digits: Decimals in the table.
    """

    key: str
    title: str
    caption: str
    xlabel: str
    ylabel: str
    series: list[Series]
    kind: str = 'line'
    xlim: Optional[tuple[float, float]] = None
    ylim: Optional[tuple[Optional[float], Optional[float]]] = None
    log: bool = False
    diagonal: bool = False
    digits: int = 3

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the numbers that are drawn."""
        header = [self.xlabel, *[s.name for s in self.series]]
        if self.kind == 'density':
            return self._density_table()
        rows = []
        for i, x in enumerate(self.series[0].x):
            first = x if isinstance(x, str) else f'{x:.3f}'
            rows.append([first, *[number(s.y[i], self.digits) for s in self.series]])
        return header, rows

    def _density_table(self) -> tuple[list[str], list[list[str]]]:
        """Share of all weight in quarters of both axes: enough to read."""
        grid = self.series[0].y
        step = len(grid) // 4
        edges = [f'{i / 4:.2f}–{(i + 1) / 4:.2f}' for i in range(4)]
        rows = []
        for i in range(4):
            part = grid[i * step : (i + 1) * step]
            cells = [part[:, j * step : (j + 1) * step].sum() for j in range(4)]
            rows.append([edges[i], *[number(c, 0) for c in cells]])
        return [f'{self.xlabel} ↓  {self.ylabel} →', *edges], rows

    def alt(self) -> str:
        """The chart in words: for each series where it starts, ends and peaks."""
        kinds = dict(line='Line chart', bar='Bar chart', density='Density map')
        words = [f'{kinds[self.kind]}, {self.ylabel} against {self.xlabel}.']
        for series in self.series:
            y = np.asarray(series.y, dtype=float)
            known = np.flatnonzero(~np.isnan(y)) if self.kind != 'density' else []
            if self.kind == 'density':
                words.append(f'{series.name}: {y.sum():.0f} in all.')
            elif len(known) == 0:
                words.append(f'{series.name}: no data.')
            elif self.kind == 'bar':
                values = (f'{series.x[i]} {number(y[i], self.digits)}' for i in known)
                words.append(f'{series.name}: {", ".join(values)}.')
            else:
                a, b = known[0], known[-1]
                top = known[int(np.argmax(y[known]))]
                words.append(
                    f'{series.name}: {number(y[a], self.digits)} at {series.x[a]:.2f}, '
                    f'{number(y[b], self.digits)} at {series.x[b]:.2f}, highest '
                    f'{number(y[top], self.digits)} at {series.x[top]:.2f}.'
                )
        return ' '.join(words)


def number(value: float, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return '–' if value is None or np.isnan(value) else f'{value:.{digits}f}'


def draw(chart: Chart):
    """The chart as a matplotlib figure, each series under a name of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout='constrained')
    axis = figure.add_subplot()
    dict(line=_lines, bar=_bars, density=_density)[chart.kind](axis, chart)
    if chart.diagonal:
        axis.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (2, 2)), zorder=1)
    axis.set_xlabel(chart.xlabel, color=INK)
    axis.set_ylabel(chart.ylabel, color=INK)
    if chart.xlim:
        axis.set_xlim(*chart.xlim)
    if chart.ylim:
        axis.set_ylim(*chart.ylim)
    if chart.log:
        axis.set_yscale('log')
    axis.tick_params(colors=MUTED, labelcolor=INK)
    axis.grid(
        visible=True, color=GRID, lw=0.6, axis='y' if chart.kind == 'bar' else 'both'
    )
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ('left', 'bottom'))
        spine.set_color(MUTED)
    if chart.kind != 'density':
        _legend(figure, chart)
    return figure


def _legend(figure, chart: Chart) -> None:
    """A legend above the axes whose entries follow the page's switches too."""
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
    for i, series in enumerate(chart.series):
        for what, items in (('key', legend.legend_handles), ('name', legend.texts)):
            items[i].set_gid(f'{chart.key}__m{series.model}__{i}_{what}')


def _lines(axis, chart: Chart) -> None:
    for i, series in enumerate(chart.series):
        (line,) = axis.plot(
            series.x,
            series.y,
            color=LIGHT[series.model % len(LIGHT)],
            ls=DASHES[series.variant % len(DASHES)],
            marker=MARKERS[series.model % len(MARKERS)],
            ms=3.5,
            lw=1.7,
            label=series.name,
        )
        line.set_gid(f'{chart.key}__m{series.model}__{i}')


def _bars(axis, chart: Chart) -> None:
    width = 0.8 / len(chart.series)
    names = list(chart.series[0].x)
    for i, series in enumerate(chart.series):
        left = np.arange(len(names)) - 0.4 + (i + 0.5) * width
        bars = axis.bar(
            left,
            np.nan_to_num(series.y),
            width * 0.92,
            color=LIGHT[series.model % len(LIGHT)],
            label=series.name,
        )
        for j, bar in enumerate(bars):
            bar.set_gid(f'{chart.key}__m{series.model}__{i}_{j}')
    labels = [textwrap.fill(name, 12) for name in names]
    axis.set_xticks(range(len(names)), labels, fontsize=9)


def _density(axis, chart: Chart) -> None:
    from matplotlib.colors import to_rgb

    series = chart.series[0]
    grid = np.log1p(np.asarray(series.y, dtype=float)).T
    image = np.zeros((*grid.shape, 4))
    image[..., :3] = to_rgb(LIGHT[series.model % len(LIGHT)])
    image[..., 3] = grid / max(grid.max(), 1e-12)
    axis.imshow(
        image, origin='lower', extent=(0, 1, 0, 1), aspect='auto', interpolation='none'
    )


def svg(chart: Chart) -> str:
    """The chart for the page: colours are CSS variables, series are classes."""
    text = _save(chart, 'svg').decode()
    text = text[text.index('<svg') :]
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.S)
    for i, colour in enumerate(LIGHT):
        text = text.replace(colour, f'var(--m{i})')
    for name, colour in (('ink', INK), ('muted', MUTED), ('grid', GRID)):
        text = text.replace(colour, f'var(--{name})')
    text = re.sub(r'(id="[\w.-]+?__m(\d+)__[\w]+")', r'\1 class="of-m\2"', text)
    # Ids such as "figure_1" are the same in all figures: make them this one's.
    key = chart.key
    text = re.sub(rf'\bid="(?!{re.escape(key)}__)', f'id="{key}-', text)
    text = re.sub(r'(href="#|url\(#)', rf'\g<1>{key}-', text)
    # Size comes from the page, the name from the title element.
    box = re.search(r'viewBox="[^"]+"', text)[0]
    spaces = ''.join(
        f' {name}="http://www.w3.org/{where}"'
        for name, where in (('xmlns', '2000/svg'), ('xmlns:xlink', '1999/xlink'))
    )
    body = text[text.index('>') + 1 :]
    return (
        f'<svg {box} role="img" aria-labelledby="{key}-alt"{spaces}>'
        f'<title id="{key}-alt">{escape(chart.alt())}</title>{body}'
    )


def save(chart: Chart, folder: Path) -> None:
    """Write the chart as SVG and PNG files, dark on light."""
    for kind in ('svg', 'png'):
        (folder / f'{chart.key}.{kind}').write_bytes(_save(chart, kind))


def _save(chart: Chart, kind: str) -> bytes:
    import matplotlib

    settings = {
        'svg.fonttype': 'none',
        'svg.hashsalt': chart.key,
        'font.family': 'sans-serif',
        'font.size': 10,
        'axes.unicode_minus': False,
    }
    with matplotlib.rc_context(settings):
        out = io.BytesIO()
        options = (
            dict(transparent=True, metadata={'Date': None}) if kind == 'svg' else {}
        )
        draw(chart).savefig(out, format=kind, dpi=144, **options)
    return out.getvalue()


def escape(text: str) -> str:
    """Text for HTML, in elements and in attributes."""
    for character, name in (('&', 'amp'), ('<', 'lt'), ('>', 'gt'), ('"', 'quot')):
        text = text.replace(character, f'&{name};')
    return text


def data_url(data: bytes, mime: str) -> str:
    """Bytes as an address that needs no network."""
    return f'data:{mime};base64,{base64.b64encode(data).decode()}'
