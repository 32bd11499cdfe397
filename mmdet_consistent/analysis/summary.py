"""The results of one detector, computed from its tables."""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import coco_eval, measures, operating
from .annotations import AnnotatedSet
from .coco_eval import SIZES, CocoResult
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
        tables: Any = {table: store.load(table) for table in names}
        counts = store.load('counts').get('anchors', np.zeros((1, 0, COUNT_BINS)))
        return cls(name, store.image_ids(), counts=counts.sum(axis=0), **tables)

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
    def best_thresholds(self) -> list[dict[str, float]]:
        """Score threshold with the best F1, and its values: of each class, then of all.

        The last is one threshold for all classes; its values are means over them.
        """
        labels = range(len(self.truth.classes))
        curves = [operating.class_curve(self.matched, label) for label in labels]
        return [c.best() for c in (*curves, operating.mean_curve(self.matched))]

    @cached_property
    def confusion(self) -> NDArray:
        """Confusion matrix at the best threshold for all classes."""
        return operating.confusion_matrix(
            self.model.detections,
            self.matched,
            self.truth,
            self.model.image_ids,
            self.best_thresholds[-1]['threshold'],
        )

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
        model, matched = self.model, self.matched
        values = {'AP': self.coco.mean()}
        values.update({f'AP{iou}': self.coco.mean(iou / 100) for iou in (50, 75, 90)})
        values.update({f'AP{size[0]}': self.coco.mean(size=size) for size in SIZES[1:]})
        good = matched.iou >= 0.5
        values['rank correlation, IoU >= 0.5'] = measures.spearman(
            matched.score[good], matched.iou[good]
        )
        values['rank correlation, all'] = measures.spearman(matched.score, matched.iou)
        values['LaECE'] = measures.laece(matched)
        parts = ('', ' localisation', ' false positive', ' false negative')
        for part, of_classes in zip(parts, np.array(self.lrp).T):
            values[f'oLRP{part}'] = nanmean(of_classes)
        best = self.best_thresholds[-1]
        for part in ('', ' precision', ' recall', ' threshold'):
            values[f'F1{part}'] = best[part.strip() or 'f1']
        if model.num_stages:
            for stage, number in enumerate(positives(model.counts, 0.5)):
                name = f'anchors at IoU >= 0.5 per image, {stage_name(stage)}'
                values[name] = float(number) / max(len(model.image_ids), 1)
            values['anchors that change object'] = changed_object(model.anchors)
            loss = model.objects['loss'][~np.isnan(model.objects['loss'])]
            values['objects losing IoU >= 0.1 to ranking'] = nanmean(loss >= 0.1)
        return values


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
