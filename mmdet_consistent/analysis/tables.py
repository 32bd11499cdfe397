"""Tables of results, as header and rows."""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from .charts import number
from .coco_eval import SIZES
from .measures import nanmean
from .summary import Summary

# First words of a number's name: arrow towards good values, factor, decimals.
SHOWN = {
    'AP': ('↑', 100, 1),
    'rank correlation': ('↑', 1, 3),
    'F1 threshold': ('', 1, 3),
    'F1': ('↑', 100, 1),
    'anchors at IoU': ('', 1, 1),
    'anchors that change': ('↓', 100, 2),
    '': ('↓', 100, 1),
}
SIZE_NAMES = ('all', 'small, under 32² px', 'medium, to 96² px', 'large, over 96² px')


class OverviewRow(NamedTuple):
    """One single number of all models.

    Attributes:
        name: Its name.
        arrow: Arrow towards good values, or nothing.
        texts: Value of each model.
        best: Indices of the models with the best value; empty for one model, and if
            all values are equal as shown.
    """

    name: str
    arrow: str
    texts: list[str]
    best: set[int]


def overview(summaries: Sequence[Summary]) -> list[OverviewRow]:
    """Return all single numbers."""
    rows = []
    for name in max((s.scalars for s in summaries), key=len):
        arrow, factor, digits = next(SHOWN[k] for k in SHOWN if name.startswith(k))
        values = factor * np.array([s.scalars.get(name, np.nan) for s in summaries])
        texts = [number(value, digits) for value in values]
        best: set[int] = set()
        if arrow and (~np.isnan(values)).sum() > 1 and len(set(texts)) > 1:
            top = np.nanmax(values) if arrow == '↑' else np.nanmin(values)
            best = {i for i, text in enumerate(texts) if text == number(top, digits)}
        rows.append(OverviewRow(name.replace('>=', '≥'), arrow, texts, best))
    return rows


def class_table(summaries: Sequence[Summary]) -> tuple[list[str], list[list]]:
    """Return header and rows: AP, AP50, AP75 and oLRP of each class and model."""
    header = ['class', 'objects', *_heads(summaries, ['AP', 'AP50', 'AP75', 'oLRP'])]
    rows = []
    for label, name in enumerate(summaries[0].truth.classes):
        row: list = [name, int(summaries[0].matched.num_objects[label])]
        for summary in summaries:
            ap = summary.coco.ap[:, label, 0]
            values = (nanmean(ap), ap[0], ap[5], summary.lrp[label].lrp)
            row += [100 * float(value) for value in values]
        rows.append(row)
    return header, rows


def size_table(summaries: Sequence[Summary]) -> tuple[list[str], list[list]]:
    """Return header and rows: AP, AP50, AP75 and recall by size of the object."""
    header = ['size (COCO)', *_heads(summaries, ['AP', 'AP50', 'AP75', 'AR'])]
    rows = []
    for i, (name, size) in enumerate(zip(SIZE_NAMES, SIZES)):
        row: list = [name]
        for summary in summaries:
            row += [100 * summary.coco.mean(iou, size) for iou in (None, 0.5, 0.75)]
            row.append(100 * nanmean(summary.coco.recall[:, :, i]))
        rows.append(row)
    return header, rows


def threshold_table(summaries: Sequence[Summary]) -> tuple[list[str], list[list]]:
    """Return header and rows: the threshold with the best F1 of all and each class."""
    header = ['class', *_heads(summaries, ['threshold', 'F1', 'precision', 'recall'])]
    rows = []
    names = [*summaries[0].truth.classes, 'all, one threshold']
    for i, name in enumerate(names):
        row: list = [name]
        for best in (summary.best_thresholds[i] for summary in summaries):
            row.append(number(best['threshold']))
            row += [100 * best[part] for part in ('f1', 'precision', 'recall')]
        rows.append(row)
    return header, [rows[-1], *rows[:-1]]


def confusion_table(
    summary: Summary, limit: Optional[int] = None
) -> tuple[list[str], list[list]]:
    """Return header and rows of the confusion matrix.

    Args:
        summary: The results of a detector.
        limit: Greatest number of classes; those with the fewest objects become one.
    """
    matrix, names = summary.confusion, list(summary.truth.classes)
    if limit is not None and len(names) > limit:
        most = np.argsort(-summary.matched.num_objects, kind='stable')[:limit]
        place = np.full(len(matrix), limit)
        place[most] = np.arange(limit)
        place[-1] = limit + 1
        merged = np.zeros((limit + 2, limit + 2), np.int64)
        np.add.at(merged, (place[:, None], place), matrix)
        others = f'{len(names) - limit} other classes'
        matrix, names = merged, [*(names[i] for i in most), others]
    rows = zip([*names, 'no object'], matrix.tolist())
    return ['object', *names, 'missed'], [[name, *counts] for name, counts in rows]


def _heads(summaries: Sequence[Summary], names: Sequence[str]) -> list[str]:
    """Return the column heads of each model, with its name if there are several."""
    many = len(summaries) > 1
    return [f'{n} {s.model.name}' if many else n for s in summaries for n in names]
