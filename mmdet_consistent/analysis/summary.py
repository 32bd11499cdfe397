"""All numbers of one detector, from its tables."""

from typing import Any, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from . import coco_eval, measures
from .collect import COUNT_BINS, Table
from .ground_truth import GroundTruth
from .matching import Matched, match_detections
from .shards import ShardStore
from .tide import Tide, error_shares

REPORT_BINS = 20


class Model(NamedTuple):
    """What was collected of one detector; tables are as in :mod:`collect`.

    ``oracle``, ``anchors``, ``objects`` and ``counts`` are empty where only
    detections are there.
    """

    name: str
    image_ids: list
    detections: Table
    oracle: Table
    anchors: Table
    objects: Table
    counts: NDArray  # (stages, COUNT_BINS), summed over the images

    @classmethod
    def from_store(cls, name: str, store: ShardStore) -> 'Model':
        """Read a finished collection."""
        counts = store.load('counts')
        return cls(
            name,
            store.image_ids(),
            store.load('detections'),
            store.load('oracle'),
            store.load('anchors'),
            store.load('objects'),
            counts['anchors'].sum(axis=0) if counts else np.zeros((0, COUNT_BINS)),
        )

    @classmethod
    def from_detections(cls, name: str, detections: Table, image_ids: list) -> 'Model':
        """A model of which only the detections are known."""
        counts = np.zeros((0, COUNT_BINS))
        return cls(name, image_ids, detections, {}, {}, {}, counts)

    @property
    def num_stages(self) -> int:
        """Boxes of an anchor: prior, after the first regression, …; 0 unknown."""
        return len(self.counts)


class Summary(NamedTuple):
    """The numbers of one detector."""

    model: Model
    coco: coco_eval.CocoResult
    matched: Matched
    tide: Tide
    lrp: list[measures.Lrp]
    calibration: measures.Reliability
    score_of_iou: measures.Binned
    iou_of_iou: list[measures.Binned]
    oracles: dict[str, float]
    scalars: dict[str, Optional[float]]


def summarize(model: Model, truth: GroundTruth) -> Summary:
    """Work out everything that is shown of a detector."""
    ids, detections = model.image_ids, model.detections
    coco = coco_eval.evaluate(detections, truth, ids)
    matched = match_detections(detections, truth, ids)
    tide = error_shares(detections, truth, ids)
    lrp = measures.lrp_by_class(matched)
    oracles = oracle_gaps(model, truth, coco, matched)
    return Summary(
        model,
        coco,
        matched,
        tide,
        lrp,
        measures.reliability(matched),
        score_against_iou(model, matched),
        stage_against_stage(model.anchors),
        oracles,
        scalars(model, coco, matched, lrp, oracles),
    )


def score_against_iou(model: Model, matched: Matched) -> measures.Binned:
    """Figure 5a/b: score of anchors, or else of detections, by their IoU."""
    if not model.anchors:
        return measures.binned(matched.iou, matched.score, num_bins=REPORT_BINS)
    last = model.num_stages - 1
    anchors = model.anchors
    return measures.binned(
        anchors[f'iou_{last}'], anchors['score'], anchors['weight'], REPORT_BINS
    )


def stage_against_stage(anchors: Table) -> list[measures.Binned]:
    """Figure 5c/d: IoU after each regression by the IoU before it."""
    steps = []
    while f'iou_{len(steps) + 1}' in anchors:
        before, after = f'iou_{len(steps)}', f'iou_{len(steps) + 1}'
        steps.append(
            measures.binned(
                anchors[before], anchors[after], anchors['weight'], REPORT_BINS
            )
        )
    return steps


def oracle_gaps(
    model: Model, truth: GroundTruth, coco: coco_eval.CocoResult, matched: Matched
) -> dict[str, float]:
    """AP as it is, and as it would be if one thing were perfect."""
    ids, detections = model.image_ids, model.detections
    gaps = {'as it is': coco.mean()}
    ranked = coco_eval.with_iou_as_score(detections, matched.iou)
    gaps['ranked by true IoU after NMS'] = coco_eval.evaluate(ranked, truth, ids).mean()
    if model.oracle:
        best = coco_eval.evaluate(model.oracle, truth, ids).mean()
        gaps['ranked by true IoU before NMS'] = best
    moved = coco_eval.with_perfect_boxes(detections, truth)
    gaps['perfect boxes'] = coco_eval.evaluate(moved, truth, ids).mean()
    return gaps


def positives(counts: NDArray, threshold: float) -> NDArray:
    """Anchors with an IoU of at least the threshold, after each stage."""
    return counts[:, round(threshold * COUNT_BINS) :].sum(axis=1)


def scalars(
    model: Model,
    coco: coco_eval.CocoResult,
    matched: Matched,
    lrp: list[measures.Lrp],
    oracles: dict[str, float],
) -> dict[str, Any]:
    """Single numbers by name, in the order in which they are shown."""
    good = matched.iou >= 0.5
    values: dict[str, Any] = dict(
        AP=coco.mean(),
        AP50=coco.mean(0.5),
        AP75=coco.mean(0.75),
        AP90=coco.mean(0.9),
        APs=coco.mean(size='small'),
        APm=coco.mean(size='medium'),
        APl=coco.mean(size='large'),
    )
    values['rank correlation, IoU >= 0.5'] = measures.spearman(
        matched.score[good], matched.iou[good]
    )
    values['rank correlation, all'] = measures.spearman(matched.score, matched.iou)
    values['LaECE'] = measures.laece(matched)
    for name in ('lrp', 'localisation', 'false_positive', 'false_negative'):
        column = np.array([getattr(row, name) for row in lrp])
        values[f'oLRP {name}'.replace('_', ' ').replace(' lrp', '')] = (
            coco_eval.nanmean(column)
        )
    if model.num_stages:
        num_images = max(len(model.image_ids), 1)
        for stage, number in enumerate(positives(model.counts, 0.5)):
            name = f'anchors at IoU >= 0.5 an image, {stage_name(stage)}'
            values[name] = float(number) / num_images
        values['anchors that change object'] = changed_object(model.anchors)
        loss = model.objects['loss']
        seen = ~np.isnan(loss)
        values['objects losing IoU >= 0.1 to ranking'] = (
            float((loss[seen] >= 0.1).mean()) if seen.any() else float('nan')
        )
    return values


def stage_name(stage: int) -> str:
    """What the boxes of a stage are called."""
    if stage == 0:
        return 'prior'
    return 'refined' if stage == 1 else f'refined {stage} times'


def changed_object(anchors: Table) -> float:
    """Share of the anchors at IoU >= 0.5 that end nearest to another object."""
    last = max(int(name[4:]) for name in anchors if name.startswith('iou_'))
    near = anchors['iou_0'] >= 0.5
    if not near.any():
        return float('nan')
    moved = anchors['gt_0'][near] != anchors[f'gt_{last}'][near]
    return float(np.average(moved, weights=anchors['weight'][near]))
