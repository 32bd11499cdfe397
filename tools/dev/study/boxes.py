"""Where a detector's anchors end up, which shows what second labels can improve."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn


class Anchors(NamedTuple):
    """Anchors that are positive for the first or the second labels (A anchors).

    Attributes:
        first: (A,) bool, positive for the first labels.
        second: (A,) bool, positive for the second labels (IoU >= 0.6 once refined).
        prior_iou: (A,) highest IoU of the prior anchor with any object.
        own_iou: (A,) IoU of the refined anchor with the object that the first
            labels assigned to it; NaN where they assigned none.
        refined_iou: (A,) highest IoU of the refined anchor with any object.
        final_iou: (A,) IoU with that same object after the last regression.
        moved: (A,) bool, positive for the first labels, but closest to another
            object after the regression.
        moved_class: (A,) bool, moved to an object of another class.
        objects: Number of objects in the images.
    """

    first: np.ndarray
    second: np.ndarray
    prior_iou: np.ndarray
    own_iou: np.ndarray
    refined_iou: np.ndarray
    final_iou: np.ndarray
    moved: np.ndarray
    moved_class: np.ndarray
    objects: int


def follow_anchors(
    priors: Tensor,
    steps: Sequence[Tensor],
    assigned: Tensor,
    gt_bboxes: Tensor,
    gt_labels: Tensor,
    pos_iou_thr: float = 0.6,
) -> Anchors:
    """Compare the anchors of one image with its objects after each regression.

    Args:
        priors: A⁰, (N, 4), xyxy in pixels.
        steps: A¹, A², …, each (N, 4).
        assigned: (N,), the object of each anchor by the first labels: i + 1 for
            object i; 0 or less for none.
        gt_bboxes: (G, 4), xyxy in pixels, G >= 1.
        gt_labels: (G,).
        pos_iou_thr: Lowest IoU of a positive for the second labels.

    Returns:
        The anchors that are positive for the first or the second labels.
    """
    overlaps = [bbox_overlaps(boxes, gt_bboxes) for boxes in (priors, *steps)]
    refined, nearest = overlaps[1].max(1)
    first = assigned > 0
    second = refined >= pos_iou_thr
    kept = first | second
    index = torch.arange(len(priors), device=priors.device)
    own = (assigned - 1).clamp(min=0)
    own_iou = overlaps[1][index, own].masked_fill(~first, float('nan'))
    moved = first & (nearest != own) & (refined > overlaps[1][index, own])
    columns = dict(
        first=first,
        second=second,
        prior_iou=overlaps[0].max(1).values,
        own_iou=own_iou,
        refined_iou=refined,
        final_iou=overlaps[-1][index, nearest],
        moved=moved,
        moved_class=moved & (gt_labels[nearest] != gt_labels[own]),
    )
    return Anchors(
        **{name: value[kept].cpu().numpy() for name, value in columns.items()},
        objects=len(gt_bboxes),
    )


@torch.no_grad()
def collect_anchors(model: nn.Module, batches: Iterable[dict]) -> Anchors:
    """Follow the anchors of a data set through an anchor-based detector.

    Args:
        model: An mmdet detector with an ``AnchorHead``, in evaluation mode; a
            consistent head's regression stages are followed one by one.
        batches: Batches of a data loader with ground truth.

    Returns:
        The anchors of all images.
    """
    head, found = model.bbox_head, []
    coders = getattr(head.bbox_coder, 'stages', [head.bbox_coder])
    for batch in batches:
        data = model.data_preprocessor(batch, False)
        _, levels = model(data['inputs'], mode='tensor')
        deltas = torch.cat(
            [
                x.permute(0, 2, 3, 1).reshape(len(x), -1, 4 * len(coders))
                for x in levels
            ],
            dim=1,
        )
        priors = torch.cat(
            [
                get_box_tensor(boxes)
                for boxes in head.prior_generator.grid_priors(
                    [x.shape[-2:] for x in levels], device=deltas.device
                )
            ]
        )
        for sample, rows in zip(data['data_samples'], deltas):
            gt = sample.gt_instances
            if len(gt) == 0:
                continue
            steps, boxes = [], priors
            for stage, coder in enumerate(coders):
                boxes = get_box_tensor(
                    coder.decode(boxes, rows[:, 4 * stage : 4 * stage + 4])
                )
                steps.append(boxes)
            assigned = head.assigner.assign(InstanceData(priors=priors), gt).gt_inds
            found.append(
                follow_anchors(
                    priors, steps, assigned, get_box_tensor(gt.bboxes), gt.labels
                )
            )
    return Anchors(
        *(np.concatenate(column) for column in list(zip(*found))[:-1]),
        objects=sum(anchors.objects for anchors in found),
    )


def facts(anchors: Anchors) -> dict[str, float]:
    """Return the page's facts on the anchors; shares in per cent, IoUs times 100."""
    first, second = anchors.first, anchors.second
    # Positive for the second labels only, and for both.
    new, both = second & ~first, second & first

    def mean(values: np.ndarray) -> float:
        return 100 * float(np.mean(values)) if len(values) else float('nan')

    return {
        'first positives per object': first.sum() / anchors.objects,
        'second positives per object': second.sum() / anchors.objects,
        'first positives: refined IoU': mean(anchors.own_iou[first]),
        'first positives: refined IoU < 0.5 (%)': mean(anchors.own_iou[first] < 0.5),
        'first positives that moved to another object (%)': mean(anchors.moved[first]),
        '… of another class (%)': mean(anchors.moved_class[first]),
        'positive for both: IoU after step 1': mean(anchors.refined_iou[both]),
        'positive for both: IoU after the last step': mean(anchors.final_iou[both]),
        'second labels only: IoU after step 1': mean(anchors.refined_iou[new]),
        'second labels only: IoU after the last step': mean(anchors.final_iou[new]),
    }
