"""From one image's outputs to rows of tidy tables.

Three tables and one count, all as columns (name to array):

``detections``  the final detections: image_id, label, score, x1, y1, x2, y2;
``oracle``      the same, had NMS ranked the boxes by their true IoU;
``anchors``     a sample of anchors with weights: score, label, and for each
                stage k the IoU ``iou_k`` with the nearest ground truth and which
                one that is (``gt_k``); stage 0 is the prior anchor;
``objects``     one row a ground truth: the box that wins it at NMS and the best
                box which that one suppresses, each with anchor, score and IoU;
``counts``      anchors of an image by IoU, exact: (stages, 100) per image.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor

from .ground_truth import ImageTruth
from .recorder import AnchorOutputs, nearest

Table = dict[str, NDArray]
COUNT_BINS = 100
NEAR_IOU = 0.1  # anchors that come this close to an object are sampled apart
TOUCH_IOU = 0.3  # a box that overlaps an object this much competes for it
CORNERS = ('x1', 'y1', 'x2', 'y2')


def detection_rows(image_id: int, instances: InstanceData) -> Table:
    """Rows of ``detections`` (or ``oracle``) of one image."""
    boxes = get_box_tensor(instances.bboxes).cpu().numpy().astype(np.float32)
    return dict(
        image_id=np.full(len(boxes), image_id, dtype=np.int64),
        label=instances.labels.cpu().numpy().astype(np.int32),
        score=instances.scores.cpu().numpy().astype(np.float32),
        **{name: boxes[:, i] for i, name in enumerate(CORNERS)},
    )


def anchor_ious(outputs: AnchorOutputs, truth: ImageTruth) -> list[tuple]:
    """(IoU, index) of the nearest ground truth after each stage; see nearest."""
    gt_bboxes = torch.from_numpy(truth.boxes)
    return [nearest(boxes, gt_bboxes) for boxes in outputs.boxes]


def anchor_counts(ious: list[tuple]) -> NDArray:
    """How many anchors have which IoU, (stages, COUNT_BINS) int64.

    Bin b of n holds b/n <= IoU < (b + 1)/n; the last one 1.0 too.
    """
    rows = []
    for iou, _ in ious:
        # Double precision, and a hair up: an IoU of 0.6 in single precision
        # belongs into the bin that begins at 0.6.
        bins = (iou.double() * COUNT_BINS + 1e-4).long().clamp(0, COUNT_BINS - 1)
        rows.append(torch.bincount(bins, minlength=COUNT_BINS).cpu().numpy())
    return np.stack(rows)


def anchor_rows(
    image_id: int, outputs: AnchorOutputs, ious: list[tuple], limit: int, seed: int = 0
) -> Table:
    """A weighted sample of the image's anchors, at most ``limit`` rows.

    Half of the rows at least are for anchors that come near an object before or
    after a regression, the others for the many that never do. ``weight`` is how
    many anchors a row stands for, so weighted sums are unbiased. The sample
    depends on the seed and the image alone.
    """
    near = torch.stack([iou for iou, _ in ious]).amax(0).cpu().numpy() >= NEAR_IOU
    rng = np.random.default_rng([seed, abs(hash(image_id)) % 2**32])
    picks, weights = [], []
    far_limit = max(limit - int(near.sum()), limit // 2)
    near_limit = limit - min(far_limit, int((~near).sum()))
    for stratum, room in ((near, near_limit), (~near, far_limit)):
        members = stratum.nonzero()[0]
        chosen = members
        if len(members) > room:
            chosen = np.sort(rng.choice(members, size=room, replace=False))
        picks.append(chosen)
        weights.append(np.full(len(chosen), len(members) / max(len(chosen), 1)))
    rows = np.concatenate(picks)
    keep = torch.from_numpy(rows).to(outputs.scores.device)
    score, label = outputs.scores[keep].max(dim=1)
    table = dict(
        image_id=np.full(len(rows), image_id, dtype=np.int64),
        anchor=rows.astype(np.int32),
        weight=np.concatenate(weights).astype(np.float32),
        score=score.cpu().numpy().astype(np.float32),
        label=label.cpu().numpy().astype(np.int32),
    )
    for stage, (iou, index) in enumerate(ious):
        table[f'iou_{stage}'] = iou[keep].cpu().numpy().astype(np.float32)
        table[f'gt_{stage}'] = index[keep].cpu().numpy().astype(np.int32)
    return table


def object_rows(
    image_id: int, outputs: AnchorOutputs, truth: ImageTruth, score_thr: float = 0.05
) -> Table:
    """One row a ground truth: who wins it, and who should have.

    A box competes for the object of its class that it overlaps most, from an
    IoU of ``TOUCH_IOU`` on. ``win_*`` is the competitor with the highest score:
    none of the others survives near it at NMS. ``best_*`` is, among the winner
    and those it suppresses, the one with the highest IoU; ``loss`` is how much
    IoU is lost thereby. All are NaN for an object that nothing competes for.
    """
    num = len(truth.boxes)
    columns = ['loss']
    for who in ('win', 'best'):
        columns += [f'{who}_{n}' for n in ('score', 'iou', 'prior_iou')]
        columns += [f'{who}_{c}' for c in CORNERS]
        columns += [f'{who}_prior_{c}' for c in CORNERS]
    table: Table = {name: np.full(num, np.nan, dtype=np.float32) for name in columns}
    gt_bboxes = torch.from_numpy(truth.boxes).to(outputs.boxes[0])
    labels = torch.from_numpy(truth.labels)
    for label in labels.unique().tolist():
        mine = (labels == label).nonzero().squeeze(1)
        # Only these can survive the head's own threshold.
        alive = (outputs.scores[:, label] >= score_thr).nonzero().squeeze(1)
        final = outputs.boxes[-1][alive]
        iou, which = nearest(final, gt_bboxes[mine.to(gt_bboxes.device)])
        touching = iou >= TOUCH_IOU
        for local in which[touching].unique().tolist():
            rivals = alive[touching & (which == local)]
            rival_iou = iou[touching & (which == local)]
            _duel(table, int(mine[local]), label, outputs, rivals, rival_iou, gt_bboxes)
    return dict(
        image_id=np.full(num, image_id, dtype=np.int64),
        gt=np.arange(num, dtype=np.int32),
        label=truth.labels.astype(np.int32),
        **{
            f'gt_{name}': truth.boxes[:, i].astype(np.float32)
            for i, name in enumerate(CORNERS)
        },
        **table,
    )


def _duel(
    table: Table,
    row: int,
    label: int,
    outputs: AnchorOutputs,
    rivals: Tensor,
    iou: Tensor,
    gt_bboxes: Tensor,
) -> None:
    """Fill one row of ``objects``: the winner, and the best that it suppresses."""
    scores = outputs.scores[rivals, label]
    boxes = outputs.boxes[-1][rivals]
    win = int(scores.argmax())
    overlap = bbox_overlaps(boxes, boxes[win : win + 1])[:, 0]
    suppressed = overlap > outputs.nms_iou
    suppressed[win] = True
    best = int(iou.masked_fill(~suppressed, -1).argmax())
    table['loss'][row] = float(iou[best] - iou[win])
    for who, index in (('win', win), ('best', best)):
        prior = outputs.boxes[0][rivals[index]]
        prior_iou = bbox_overlaps(prior[None], gt_bboxes[row : row + 1])
        table[f'{who}_score'][row] = float(scores[index])
        table[f'{who}_iou'][row] = float(iou[index])
        table[f'{who}_prior_iou'][row] = float(prior_iou)
        for i, name in enumerate(CORNERS):
            table[f'{who}_{name}'][row] = float(boxes[index, i])
            table[f'{who}_prior_{name}'][row] = float(prior[i])


def concatenate(tables: list[Mapping[str, Any]]) -> Table:
    """Tables with the same columns, one below the other."""
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
