"""One HTML page that needs nothing else: no network, no other file."""

import importlib.resources
import string
from typing import Optional

from . import cases, figures, tables
from .charts import DARK, LIGHT, Chart, escape, svg
from .ground_truth import GroundTruth
from .summary import Summary


def build_page(
    summaries: list[Summary],
    truth: GroundTruth,
    command: str,
    facts: str,
    num_cases: int = 4,
) -> str:
    """The page.

    Args:
        summaries: The detectors' numbers, in the order of their colours.
        truth: Ground truth with the images' place, for the cases.
        command: How it was made.
        facts: Versions and the like, for the last line.
        num_cases: Worst cases of each model.
    """
    template = importlib.resources.files(__package__) / 'page.html'
    names = [s.model.name for s in summaries]
    sections = [
        _section(
            'overview', 'In numbers', tables.overview(summaries) + _missing(summaries)
        ),
        _section('accuracy', 'Accuracy', _charts(figures.accuracy(summaries))),
        _section(
            'score', 'Score and place', _charts(figures.score_and_place(summaries))
        ),
        _section(
            'anchors',
            'Anchors before and after regression',
            _charts(figures.before_and_after(summaries)),
        ),
        _section('calibration', 'Calibration', _charts(figures.calibration(summaries))),
        _section('cases', 'The worst real cases', _cases(summaries, truth, num_cases)),
        _section(
            'classes',
            'By class and by size',
            tables.class_and_size_tables(summaries, truth),
        ),
    ]
    sections = [s for s in sections if s]
    links = ''.join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    text = string.Template(template.read_text(encoding='utf-8'))
    return text.substitute(
        title=escape(' and '.join(names) if len(names) < 4 else f'{len(names)} models'),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        hide=_hide_rules(len(names)),
        switches=_switches(names),
        links=links,
        body='\n'.join(
            f'<section id="{a}" aria-labelledby="{a}-h"><h2 id="{a}-h">{t}</h2>{b}'
            '</section>'
            for a, t, b in sections
        ),
        images=len(summaries[0].model.image_ids),
        objects=int(summaries[0].matched.num_objects.sum()),
        command=escape(command),
        facts=escape(facts),
    )


def all_charts(summaries: list[Summary]) -> list[Chart]:
    """Every chart of the page, in its order."""
    return [
        *figures.accuracy(summaries),
        *figures.score_and_place(summaries),
        *figures.before_and_after(summaries),
        *figures.calibration(summaries),
    ]


def _section(anchor: str, title: str, body: str) -> Optional[tuple[str, str, str]]:
    return (anchor, title, body) if body else None


def _variables(colours: tuple) -> str:
    return ''.join(f'--m{i}:{colour};' for i, colour in enumerate(colours))


def _hide_rules(num: int) -> str:
    return ','.join(f'.hide-m{i} .of-m{i}' for i in range(num))


def _switches(names: list[str]) -> str:
    if len(names) < 2:
        return ''
    boxes = ''.join(
        f'<label><input type="checkbox" checked data-model="{i}">'
        f'<span class="dot" style="background:var(--m{i % len(LIGHT)})"></span>'
        f'{escape(name)}</label>'
        for i, name in enumerate(names)
    )
    return f'<fieldset><legend>Show</legend>{boxes}</fieldset>'


def _charts(charts: list[Chart]) -> str:
    if not charts:
        return ''
    return f'<div class="grid">{"".join(_figure(chart) for chart in charts)}</div>'


def _figure(chart: Chart) -> str:
    header, rows = chart.table()
    whole = f' of-m{chart.series[0].model}' if chart.kind == 'density' else ''
    models = [None, *[s.model for s in chart.series]]
    if chart.kind == 'density':
        models = [None] * len(header)
    return (
        f'<figure id="{chart.key}" class="chart{whole}">'
        f'<h3>{escape(chart.title)}</h3>{svg(chart)}'
        f'<figcaption>{escape(chart.caption)}</figcaption>'
        f'<details><summary>The numbers<span class="sr"> of {escape(chart.title)}'
        f'</span></summary>{tables.plain_table(header, rows, models)}</details>'
        '</figure>'
    )


def _missing(summaries: list[Summary]) -> str:
    """A sentence about what cannot be known of some models."""
    blind = [s.model.name for s in summaries if not s.model.num_stages]
    if not blind:
        return ''
    return (
        f'<p class="note">Of {escape(", ".join(blind))} only detections are known: no '
        'anchors, no suppressed boxes.</p>'
    )


def _cases(summaries: list[Summary], truth: GroundTruth, count: int) -> str:
    found, searched = [], False
    for i, summary in enumerate(summaries):
        searched |= bool(summary.model.objects)
        for case in cases.worst_cases(summary.model.objects, i, count):
            html = cases.case_html(case, summaries, truth, len(found))
            if html:
                found.append(html)
    if not searched:
        return ''
    if not found:
        return '<p>No object loses its best box, or the images are not there.</p>'
    return (
        '<p>The better box starts or ends near the object and is dropped, because '
        'another one has the higher score: the paper’s Figure 2. One case an image, '
        'by lost IoU. <span class="key"><span class="swatch gt"></span>object '
        '<span class="swatch other"></span>other objects <span class="swatch win">'
        '</span>wins <span class="swatch best"></span>best box</span></p>'
        + ''.join(found)
    )
