"""One HTML page that needs nothing else: no network, no other file."""

import importlib.resources
import string
from typing import NamedTuple, Optional

import numpy as np

from . import cases, figures
from .charts import DARK, LIGHT, Chart, escape, number, svg
from .ground_truth import GroundTruth
from .summary import Summary


class Meaning(NamedTuple):
    """How a single number is shown.

    Attributes:
        factor: What it is multiplied with.
        digits: Decimals.
        good: ``high``, ``low`` or nothing.
        words: What it says.
    """

    factor: float
    digits: int
    good: str
    words: str


MEANINGS = {
    'AP': Meaning(100, 1, 'high', 'COCO, IoU 0.50 to 0.95'),
    'AP50': Meaning(100, 1, 'high', 'at IoU 0.50'),
    'AP75': Meaning(100, 1, 'high', 'at IoU 0.75'),
    'AP90': Meaning(100, 1, 'high', 'at IoU 0.90'),
    'APs': Meaning(100, 1, 'high', 'small objects'),
    'APm': Meaning(100, 1, 'high', 'medium objects'),
    'APl': Meaning(100, 1, 'high', 'large objects'),
    'rank correlation, IoU >= 0.5': Meaning(
        1, 3, 'high', 'Spearman’s, of score and IoU among the detections on an object'
    ),
    'rank correlation, all': Meaning(1, 3, 'high', 'the same among all detections'),
    'LaECE': Meaning(100, 1, 'low', 'localisation-aware calibration error, per cent'),
    'oLRP': Meaning(100, 1, 'low', 'optimal localisation-recall-precision error'),
    'oLRP localisation': Meaning(100, 1, 'low', '1 − IoU of the right ones there'),
    'oLRP false_positive': Meaning(100, 1, 'low', '1 − precision there'),
    'oLRP false_negative': Meaning(100, 1, 'low', '1 − recall there'),
    'anchors that change object': Meaning(
        100, 2, 'low', 'per cent of those at IoU 0.5 or more with one object'
    ),
    'objects losing IoU >= 0.1 to ranking': Meaning(
        100, 1, 'low', 'per cent whose best box NMS drops for a worse one'
    ),
}
PLAIN = Meaning(1, 1, '', '')


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
        _section('overview', 'In numbers', _overview(summaries) + _missing(summaries)),
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
            _class_and_size_tables(summaries, truth),
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
        f'</span></summary>{_table(header, rows, models)}</details></figure>'
    )


def _table(header, rows, models) -> str:
    """A plain table whose columns follow the models' switches."""
    classes = _column_classes(models)
    head = ''.join(
        f'<th scope="col"{c}>{escape(str(h))}</th>' for h, c in zip(header, classes)
    )
    body = ''.join(
        '<tr>'
        + f'<th scope="row">{escape(str(row[0]))}</th>'
        + ''.join(f'<td{c}>{v}</td>' for v, c in zip(row[1:], classes[1:]))
        + '</tr>'
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0"><table><thead><tr>'
        f'{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _column_classes(models: list) -> list[str]:
    """The class attribute of each column; None belongs to no model."""
    return ['' if m is None else f' class="of-m{m}"' for m in models]


def _overview(summaries: list[Summary]) -> str:
    """All single numbers, a row each, a column a model."""
    names = list(max((s.scalars for s in summaries), key=len))
    rows = []
    for name in names:
        meaning = MEANINGS.get(name, PLAIN)
        values = [s.scalars.get(name, float('nan')) for s in summaries]
        texts = [number(v * meaning.factor, meaning.digits) for v in values]
        best = _best(values, texts, meaning.good)
        cells = ''.join(
            f'<td class="of-m{i}">'
            + (f'<strong>{t}</strong>' if i in best else t)
            + '</td>'
            for i, t in enumerate(texts)
        )
        label = escape(name.replace('>=', '≥').replace('false_', 'false '))
        if meaning.good:
            arrow = '↑' if meaning.good == 'high' else '↓'
            label += (
                f' <span aria-hidden="true">{arrow}</span>'
                f'<span class="sr">, {meaning.good} is good</span>'
            )
        rows.append(
            f'<tr><th scope="row">{label} <small>{escape(meaning.words)}</small></th>'
            f'{cells}</tr>'
        )
    head = ''.join(
        f'<th scope="col" class="of-m{i}"><span class="dot" '
        f'style="background:var(--m{i % len(LIGHT)})"></span>'
        f'{escape(s.model.name)}</th>'
        for i, s in enumerate(summaries)
    )
    return (
        '<p>An arrow says which way is good; the best is bold.</p>'
        '<div class="scroll" tabindex="0"><table class="overview"><thead><tr>'
        f'<th scope="col">measure</th>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div>'
    )


def _best(values: list, texts: list[str], good: str) -> set[int]:
    """Indices of the best value as shown; none of one model or of equals."""
    known = [v for v in values if not np.isnan(v)]
    if not good or len(known) < 2 or len(set(texts)) == 1:
        return set()
    best = max(known) if good == 'high' else min(known)
    shown = texts[values.index(best)]
    return {i for i, text in enumerate(texts) if text == shown}


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


def _class_and_size_tables(summaries: list[Summary], truth: GroundTruth) -> str:
    columns = [i for i in range(len(summaries)) for _ in range(4)]
    return (
        '<p>A click on a column’s head sorts by it.</p>'
        + _data_table(
            'classes-table',
            *figures.class_table(summaries, truth.classes),
            [None, None, *columns],
        )
        + _data_table('sizes-table', *figures.size_table(summaries), [None, *columns])
    )


def _data_table(key: str, header: list[str], rows: list[list], models: list) -> str:
    """A table that can be sorted by a click on a column's head."""
    classes = _column_classes(models)
    head = ''.join(
        f'<th scope="col" aria-sort="none"{c}><button type="button" '
        f'data-column="{i}">{escape(h)}</button></th>'
        for i, (h, c) in enumerate(zip(header, classes))
    )
    body = []
    for row in rows:
        cells = []
        for i, value in enumerate(row):
            text = value if isinstance(value, str) else str(value)
            if isinstance(value, float):
                text = number(value, 1)
            tag = 'th scope="row"' if i == 0 else f'td{classes[i]}'
            key_value = escape(str(value))
            cells.append(
                f'<{tag} data-value="{key_value}">{escape(text)}</{tag.split()[0]}>'
            )
        body.append(f'<tr>{"".join(cells)}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table class="sortable" id="{key}">'
        f'<thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )
