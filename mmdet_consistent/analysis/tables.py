"""Tables of results, as header and rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .charts import number
from .coco_eval import SIZES
from .measures import nanmean
from .summary import ANCHOR_SCALARS, SCALARS, Scalar, Summary

PLAIN = Scalar(lambda _: np.nan, good='', factor=1)  # a number of anchors
SIZE_NAMES = ('all', 'small, under 32² px', 'medium, to 96² px', 'large, over 96² px')


class OverviewRow(NamedTuple):
    """One single number of all models.

    Attributes:
        name: Its name.
        scalar: How it is shown.
        texts: Value of each model.
        best: Indices of the models with the best value; empty for one model, and if
            all values are equal as shown.
    """

    name: str
    scalar: Scalar
    texts: list[str]
    best: set[int]

    @property
    def arrow(self) -> str:
        """Arrow towards good values, or nothing."""
        return dict(high='↑', low='↓').get(self.scalar.good, '')


def overview(summaries: Sequence[Summary]) -> list[OverviewRow]:
    """Return all single numbers."""
    rows = []
    scalars = {**SCALARS, **ANCHOR_SCALARS}
    for name in max((s.scalars for s in summaries), key=len):
        scalar = scalars.get(name, PLAIN)
        values = np.array([s.scalars.get(name, np.nan) for s in summaries])
        values *= scalar.factor
        texts = [number(value, scalar.digits) for value in values]
        best: set[int] = set()
        known = values[~np.isnan(values)]
        if scalar.good and len(known) > 1 and len(set(texts)) > 1:
            top = known.max() if scalar.good == 'high' else known.min()
            top = number(top, scalar.digits)
            best = {i for i, text in enumerate(texts) if text == top}
        rows.append(OverviewRow(name.replace('>=', '≥'), scalar, texts, best))
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


def _heads(summaries: Sequence[Summary], names: Sequence[str]) -> list[str]:
    """Return the column heads of each model, with its name if there are several."""
    many = len(summaries) > 1
    return [f'{n} {s.model.name}' if many else n for s in summaries for n in names]
