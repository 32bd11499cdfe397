"""Tables of the page and of the CSV files."""

from typing import NamedTuple

import numpy as np

from . import coco_eval
from .charts import LIGHT, escape, number
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
    'oLRP false positive': Meaning(100, 1, 'low', '1 − precision there'),
    'oLRP false negative': Meaning(100, 1, 'low', '1 − recall there'),
    'anchors that change object': Meaning(
        100, 2, 'low', 'per cent of those at IoU 0.5 or more with one object'
    ),
    'objects losing IoU >= 0.1 to ranking': Meaning(
        100, 1, 'low', 'per cent whose best box NMS drops for a worse one'
    ),
}
PLAIN = Meaning(1, 1, '', '')


def class_table(summaries: list[Summary], classes: list[str]) -> tuple:
    """Header and rows: AP, AP50, AP75 and oLRP of each class and model."""
    header = ['class', 'objects']
    many = len(summaries) > 1
    for summary in summaries:
        suffix = f' {summary.model.name}' if many else ''
        header += [f'{n}{suffix}' for n in ('AP', 'AP50', 'AP75', 'oLRP')]
    rows = []
    for label, name in enumerate(classes):
        row: list = [name, int(summaries[0].matched.num_objects[label])]
        for summary in summaries:
            ap = summary.coco.ap[:, label, 0]
            row += [100 * coco_eval.nanmean(ap), 100 * ap[0], 100 * ap[5]]
            row.append(100 * summary.lrp[label].lrp)
        rows.append(row)
    return header, rows


def size_table(summaries: list[Summary]) -> tuple:
    """Header and rows: AP, AP50, AP75 and recall by size of the object."""
    header = ['size (COCO)']
    many = len(summaries) > 1
    for summary in summaries:
        suffix = f' {summary.model.name}' if many else ''
        header += [f'{n}{suffix}' for n in ('AP', 'AP50', 'AP75', 'AR')]
    ranges = ('all', 'small, under 32² px', 'medium, to 96² px', 'large, over 96² px')
    rows = []
    for name, size in zip(ranges, coco_eval.SIZES):
        row: list = [name]
        for summary in summaries:
            row += [100 * summary.coco.mean(iou, size) for iou in (None, 0.5, 0.75)]
            recall = summary.coco.recall[:, :, coco_eval.SIZES.index(size)]
            row.append(100 * coco_eval.nanmean(recall))
        rows.append(row)
    return header, rows


def plain_table(header, rows, models) -> str:
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


def overview(summaries: list[Summary]) -> str:
    """All single numbers, a row each, a column a model."""
    rows = []
    for name, values in scalar_values(summaries):
        meaning = MEANINGS.get(name, PLAIN)
        texts = [number(v * meaning.factor, meaning.digits) for v in values]
        best = _best(values, texts, meaning.good)
        cells = ''.join(
            f'<td class="of-m{i}">'
            + (f'<strong>{t}</strong>' if i in best else t)
            + '</td>'
            for i, t in enumerate(texts)
        )
        label = escape(name.replace('>=', '≥'))
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


def scalar_values(summaries: list[Summary]) -> list[tuple[str, list[float]]]:
    """(name, a value for each model) of all single numbers."""
    names = max((s.scalars for s in summaries), key=len)
    return [
        (name, [s.scalars.get(name, float('nan')) for s in summaries]) for name in names
    ]


def overview_rows(summaries: list[Summary]) -> list[list[str]]:
    """The single numbers as text, a row each: name, then each model's."""
    rows = []
    for name, values in scalar_values(summaries):
        meaning = MEANINGS.get(name, PLAIN)
        arrow = dict(high=' ↑', low=' ↓').get(meaning.good, '')
        texts = [number(v * meaning.factor, meaning.digits) for v in values]
        rows.append([name.replace('>=', '≥') + arrow, *texts])
    return rows


def _best(values: list, texts: list[str], good: str) -> set[int]:
    """Indices of the best value as shown; none of one model or of equals."""
    known = [v for v in values if not np.isnan(v)]
    if not good or len(known) < 2 or len(set(texts)) == 1:
        return set()
    best = max(known) if good == 'high' else min(known)
    shown = texts[values.index(best)]
    return {i for i, text in enumerate(texts) if text == shown}


def class_and_size_tables(summaries: list[Summary], truth: GroundTruth) -> str:
    """The two tables that can be sorted, as HTML."""
    columns = [i for i in range(len(summaries)) for _ in range(4)]
    return (
        '<p>A click on a column’s head sorts by it.</p>'
        + _data_table(
            'classes-table',
            *class_table(summaries, truth.classes),
            [None, None, *columns],
        )
        + _data_table('sizes-table', *size_table(summaries), [None, *columns])
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
