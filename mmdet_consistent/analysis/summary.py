"""The results of one detector, computed from its tables."""

from functools import cached_property
from typing import Any, Callable, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import coco_eval, measures
from .annotations import AnnotatedSet
from .coco_eval import CocoResult
from .collect import COUNT_BINS
from .columns import Table
from .matching import Matched, match_detections
from .measures import Binned, nanmean
from .shards import ShardStore
from .tide import Tide, error_shares


class Model(NamedTuple):
    """Name and tables of one detector; see :mod:`collect`.

    All tables but ``detections`` are empty if only the detections are known.
    ``counts`` is (stages, ``COUNT_BINS``), summed over the images.
    """

    name: str
    image_ids: list[int]
    detections: Table
    oracle: Table = {}
    anchors: Table = {}
    objects: Table = {}
    counts: NDArray = np.zeros((0, COUNT_BINS))

    @classmethod
    def from_store(cls, name: str, store: ShardStore) -> 'Model':
        """Read a complete collection."""
        names = ('detections', 'oracle', 'anchors', 'objects')
        tables: dict[str, Any] = {table: store.load(table) for table in names}
        counts = store.load('counts')
        if counts:
            tables['counts'] = counts['anchors'].sum(axis=0)
        return cls(name, store.image_ids(), **tables)

    @property
    def num_stages(self) -> int:
        """Number of boxes per anchor (prior, after the first regression, …), or 0."""
        return len(self.counts)


class Summary:
    """The results of one detector, each computed when first used.

    Args:
        model: The detector's tables.
        truth: The annotations.
    """

    def __init__(self, model: Model, truth: AnnotatedSet) -> None:
        self.model = model
        self.truth = truth

    def evaluate(self, detections: Table) -> CocoResult:
        """Evaluate other detections over the detector's images."""
        return coco_eval.evaluate(detections, self.truth, self.model.image_ids)

    @cached_property
    def coco(self) -> CocoResult:
        """COCO evaluation."""
        return self.evaluate(self.model.detections)

    @cached_property
    def matched(self) -> Matched:
        """Detections matched to objects."""
        model = self.model
        return match_detections(model.detections, self.truth, model.image_ids)

    @cached_property
    def tide(self) -> Tide:
        """TIDE's error shares."""
        return error_shares(self.model.detections, self.truth, self.model.image_ids)

    @cached_property
    def lrp(self) -> list[measures.Lrp]:
        """Optimal LRP error of each class."""
        return measures.lrp_by_class(self.matched)

    @cached_property
    def calibration(self) -> tuple[Binned, Binned, Binned]:
        """Score, precision and IoU by score; see :func:`measures.reliability`."""
        return measures.reliability(self.matched)

    @cached_property
    def score_of_iou(self) -> Binned:
        """Score of anchors, or else of detections, by their IoU (Figure 5a, b)."""
        anchors = self.model.anchors
        if not anchors:
            return measures.binned(self.matched.iou, self.matched.score)
        last = anchors[f'iou_{self.model.num_stages - 1}']
        return measures.binned(last, anchors['score'], anchors['weight'])

    @cached_property
    def iou_of_iou(self) -> list[Binned]:
        """IoU of anchors after each regression by that before (Figure 5c, d)."""
        anchors = self.model.anchors
        ious = [anchors[f'iou_{stage}'] for stage in range(self.model.num_stages)]
        return [
            measures.binned(before, after, anchors['weight'])
            for before, after in zip(ious, ious[1:])
        ]

    @cached_property
    def oracles(self) -> dict[str, float]:
        """AP as it is, and what it would be if one thing were perfect."""
        detections = self.model.detections
        aps = {'as it is': self.coco.mean()}
        ranked = {**detections, 'score': self.matched.iou.astype(np.float32)}
        aps['ranked by true IoU after NMS'] = self.evaluate(ranked).mean()
        if self.model.oracle:
            before = self.evaluate(self.model.oracle).mean()
            aps['ranked by true IoU before NMS'] = before
        moved = coco_eval.with_perfect_boxes(detections, self.truth)
        aps['perfect boxes'] = self.evaluate(moved).mean()
        return aps

    @cached_property
    def scalars(self) -> dict[str, float]:
        """Single numbers by name, in the order in which they are shown."""
        values = {name: scalar.value(self) for name, scalar in SCALARS.items()}
        if not self.model.num_stages:
            return values
        for stage, number in enumerate(positives(self.model.counts, 0.5)):
            name = f'anchors at IoU >= 0.5 per image, {stage_name(stage)}'
            values[name] = float(number) / max(len(self.model.image_ids), 1)
        more = {name: scalar.value(self) for name, scalar in ANCHOR_SCALARS.items()}
        return {**values, **more}


def positives(counts: NDArray, threshold: float) -> NDArray:
    """Count the anchors with an IoU of at least the threshold, per stage."""
    return counts[:, round(threshold * COUNT_BINS) :].sum(axis=1)


def stage_name(stage: int) -> str:
    """Return the name of a stage's boxes."""
    return {0: 'prior', 1: 'refined'}.get(stage, f'refined {stage} times')


def changed_object(anchors: Table) -> float:
    """Return the share of anchors at IoU >= 0.5 that end nearest to another object."""
    last = max(int(name[4:]) for name in anchors if name.startswith('iou_'))
    near = anchors['iou_0'] >= 0.5
    if not near.any():
        return measures.NAN
    moved = anchors['gt_0'][near] != anchors[f'gt_{last}'][near]
    return float(np.average(moved, weights=anchors['weight'][near]))


def rank_correlation(matched: Matched, min_iou: float = 0.0) -> float:
    """Return the rank correlation of score and IoU among detections on an object."""
    keep = matched.iou >= min_iou
    return measures.spearman(matched.score[keep], matched.iou[keep])


def losing_objects(objects: Table) -> float:
    """Return the share of objects that lose an IoU of 0.1 or more to ranking."""
    loss = objects['loss'][~np.isnan(objects['loss'])]
    return nanmean(loss >= 0.1)


class Scalar(NamedTuple):
    """A single number: how it is computed, and how it is shown.

    Attributes:
        value: Function that computes it.
        good: ``high``, ``low`` or empty.
        factor: Factor by which it is multiplied when shown.
        digits: Decimals shown.
    """

    value: Callable[[Summary], float]
    good: str = 'high'
    factor: float = 100
    digits: int = 1


def _lrp(part: str) -> Scalar:
    return Scalar(lambda s: nanmean([getattr(lrp, part) for lrp in s.lrp]), 'low')


# Their explanations are in page.html.
SCALARS = {
    'AP': Scalar(lambda s: s.coco.mean()),
    'AP50': Scalar(lambda s: s.coco.mean(0.5)),
    'AP75': Scalar(lambda s: s.coco.mean(0.75)),
    'AP90': Scalar(lambda s: s.coco.mean(0.9)),
    'APs': Scalar(lambda s: s.coco.mean(size='small')),
    'APm': Scalar(lambda s: s.coco.mean(size='medium')),
    'APl': Scalar(lambda s: s.coco.mean(size='large')),
    'rank correlation, IoU >= 0.5': Scalar(
        lambda s: rank_correlation(s.matched, 0.5), factor=1, digits=3
    ),
    'rank correlation, all': Scalar(
        lambda s: rank_correlation(s.matched), factor=1, digits=3
    ),
    'LaECE': Scalar(lambda s: measures.laece(s.matched), 'low'),
    'oLRP': _lrp('lrp'),
    'oLRP localisation': _lrp('localisation'),
    'oLRP false positive': _lrp('false_positive'),
    'oLRP false negative': _lrp('false_negative'),
}
ANCHOR_SCALARS = {
    'anchors that change object': Scalar(
        lambda s: changed_object(s.model.anchors), 'low', digits=2
    ),
    'objects losing IoU >= 0.1 to ranking': Scalar(
        lambda s: losing_objects(s.model.objects), 'low'
    ),
}
