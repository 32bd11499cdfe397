"""Turn the outputs for one image into rows of tables.

Tables (see :mod:`columns`) and one count:

``detections``  the final detections.
``oracle``      the detections that NMS would keep if it ranked boxes by true IoU.
``anchors``     a weighted sample of anchors: ``image_id``, ``anchor``, ``weight``,
                ``score``, ``label``, and per stage k the IoU ``iou_k`` with the
                nearest ground truth and its index ``gt_k``; stage 0 is the prior.
``objects``     one row per ground truth; see :func:`object_rows`.
``counts``      exact number of anchors by IoU, (stages, ``COUNT_BINS``) per image.
"""

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor

from .annotations import ImageObjects
from .columns import CORNERS, Table, corner_columns
from .measures import bin_index
from .recorder import AnchorOutputs, nearest

COUNT_BINS = 100
NEAR_IOU = 0.1  # anchors that come this close to an object are sampled separately
TOUCH_IOU = 0.3  # a box that overlaps an object this much competes for it
DUEL = ('score', 'iou', 'prior_iou', *CORNERS, *(f'prior_{name}' for name in CORNERS))


def detection_rows(image_id: int, instances: InstanceData) -> Table:
    """Return the rows of ``detections`` (or ``oracle``) of one image."""
    boxes = _array(get_box_tensor(instances.bboxes), np.float32)
    return dict(
        image_id=np.full(len(boxes), image_id, dtype=np.int64),
        label=_array(instances.labels, np.int32),
        score=_array(instances.scores, np.float32),
        **corner_columns(boxes),
    )


def anchor_ious(
    outputs: AnchorOutputs, truth: ImageObjects
) -> list[tuple[Tensor, Tensor]]:
    """Return IoU (A,) and index (A,) of the nearest ground truth at each stage."""
    gt_bboxes = torch.from_numpy(truth.boxes)
    return [nearest(boxes, gt_bboxes) for boxes in outputs.boxes]


def anchor_counts(ious: list[tuple[Tensor, Tensor]]) -> NDArray:
    """Count the anchors by IoU: (stages, ``COUNT_BINS``) int64."""
    bins = [bin_index(_array(iou), COUNT_BINS) for iou, _ in ious]
    return np.stack([np.bincount(index, minlength=COUNT_BINS) for index in bins])


def anchor_rows(
    image_id: int, outputs: AnchorOutputs, ious: list[tuple[Tensor, Tensor]], limit: int
) -> Table:
    """Sample at most ``limit`` of the image's anchors.

    At least half of the rows are for anchors that come near an object at some stage,
    the others for the many that never do. A row's ``weight`` is the number of anchors
    that it stands for, so that weighted sums are unbiased. The sample depends on the
    image alone.
    """
    near = _array(torch.stack([iou for iou, _ in ious]).amax(0)) >= NEAR_IOU
    rng = np.random.default_rng([0, abs(hash(image_id)) % 2**32])
    picks, weights = [], []
    far_limit = max(limit - int(near.sum()), limit // 2)
    near_limit = limit - min(far_limit, int((~near).sum()))
    for stratum, size in ((near, near_limit), (~near, far_limit)):
        members = chosen = stratum.nonzero()[0]
        if len(members) > size:
            chosen = np.sort(rng.choice(members, size=size, replace=False))
        picks.append(chosen)
        weights.append(np.full(len(chosen), len(members) / max(len(chosen), 1)))
    rows = np.concatenate(picks)
    score, label = outputs.scores[rows].max(dim=1)
    table: Table = dict(
        image_id=np.full(len(rows), image_id, dtype=np.int64),
        anchor=rows.astype(np.int32),
        weight=np.concatenate(weights).astype(np.float32),
        score=_array(score),
        label=_array(label, np.int32),
    )
    for stage, (iou, index) in enumerate(ious):
        table[f'iou_{stage}'] = _array(iou[rows])
        table[f'gt_{stage}'] = _array(index[rows], np.int32)
    return table


def object_rows(
    image_id: int, outputs: AnchorOutputs, truth: ImageObjects, score_thr: float = 0.05
) -> Table:
    """Find, for each ground truth, the box that wins it and the one that should.

    Boxes that score at least ``score_thr`` compete for the object of their class that
    they overlap most, from an IoU of ``TOUCH_IOU``. ``win_*`` is the competitor with
    the highest score, which suppresses those near it at NMS. ``best_*`` is, among the
    winner and the boxes that it suppresses, the one with the highest IoU, and
    ``loss`` is the IoU lost in this way. All are NaN for an object without competitor.
    """
    num = len(truth.boxes)
    scores, last = outputs.scores, outputs.boxes[-1]
    gt_bboxes = torch.from_numpy(truth.boxes).to(last)
    duels = torch.full((2, num), -1, device=last.device)  # winner and best, as anchors
    for label in np.unique(truth.labels).tolist():
        own = np.flatnonzero(truth.labels == label)
        alive = (scores[:, label] >= score_thr).nonzero().squeeze(1)
        iou, index = nearest(last[alive], gt_bboxes[own])
        for local, row in enumerate(own):
            near = (index == local) & (iou >= TOUCH_IOU)
            if near.any():
                rivals = alive[near]
                win = rivals[scores[rivals, label].argmax()]
                overlap = bbox_overlaps(last[rivals], last[win][None])[:, 0]
                beaten = (overlap > outputs.nms_iou) | (rivals == win)
                best = rivals[iou[near].masked_fill(~beaten, -1).argmax()]
                duels[:, row] = torch.stack([win, best])
    columns: Table = {}
    for who, rows in zip(('win', 'best'), duels):
        boxes, priors = last[rows], outputs.boxes[0][rows]
        values = torch.stack(
            [
                scores[rows, torch.from_numpy(truth.labels).long()],
                bbox_overlaps(boxes, gt_bboxes, is_aligned=True),
                bbox_overlaps(priors, gt_bboxes, is_aligned=True),
                *boxes.T,
                *priors.T,
            ]
        )
        values = values.masked_fill(rows < 0, np.nan)
        columns.update(zip((f'{who}_{name}' for name in DUEL), _array(values)))
    return dict(
        image_id=np.full(num, image_id, dtype=np.int64),
        gt=np.arange(num, dtype=np.int32),
        label=truth.labels.astype(np.int32),
        **corner_columns(truth.boxes.astype(np.float32), 'gt_'),
        loss=columns['best_iou'] - columns['win_iou'],
        **columns,
    )


def _array(tensor: Tensor, dtype: type = np.float32) -> NDArray:
    return tensor.cpu().numpy().astype(dtype)
