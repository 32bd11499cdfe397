"""Max-IoU search without selecting anything by its value, so that no host waits."""

from typing import TYPE_CHECKING, Optional

import torch
from torch import Tensor

from .overlaps import BoxPlanes, iou

if TYPE_CHECKING:
    from .max_iou import MatchRule

# Pairs per step: an accelerator prefers few, large launches.
BLOCK = 2**24


def search_all(
    boxes: Tensor,
    gt_bboxes: Tensor,
    num_gts: Tensor,
    rule: 'MatchRule',
    excluded: Optional[Tensor] = None,
) -> tuple[Tensor, Tensor]:
    """Match boxes with ground truths, a few ground truths at a time.

    Arguments and results are those of :func:`search_blocks`.
    """
    num_images, width = gt_bboxes.shape[:2]
    planes, gts = BoxPlanes.of(boxes).at(slice(None), None), BoxPlanes.of(gt_bboxes)
    best = boxes.new_full((num_images, boxes.shape[1]), -1.0)
    index = torch.zeros_like(best, dtype=torch.long)
    step = max(1, BLOCK // max(1, best.numel()))
    groups = [slice(first, first + step) for first in range(0, width, step)]

    def overlaps_of(group: slice) -> Tensor:
        overlaps = iou(gts.at(slice(None), group, None), planes)
        if excluded is not None:
            overlaps.masked_fill_(excluded[:, None], -1)
        return overlaps

    tops, places = [], []
    for group in groups:
        overlaps = overlaps_of(group)
        # Of equal ground truths the first one wins, as in `Tensor.max`.
        value, place = overlaps.max(dim=1)
        index = torch.where(value > best, place + group.start, index)
        best = torch.maximum(best, value)
        if rule.match_low_quality:
            value, place = overlaps.max(dim=2)
            tops.append(value)
            places.append(place)

    gt_inds = (best >= rule.neg_iou_thr).long().neg_()
    if excluded is not None:
        gt_inds.masked_fill_(excluded, -1)
    gt_inds = torch.where(best >= rule.pos_iou_thr, index + 1, gt_inds)
    if not rule.match_low_quality:
        return gt_inds, best
    top, number = torch.cat(tops, dim=1), torch.arange(width, device=boxes.device)
    takes = (number < num_gts[:, None]) & (gts.area > 0) & (top >= rule.min_pos_iou)
    marks = (number + 1) * takes
    # Of ground truths that take the same box, the last one has it.
    taken = torch.zeros_like(gt_inds)
    if not rule.gt_max_assign_all:
        taken.scatter_reduce_(1, torch.cat(places, dim=1), marks, 'amax')
    else:
        for group in groups:
            equal = overlaps_of(group) == top[:, group, None]
            mark = (equal * marks[:, group, None]).amax(dim=1)
            taken = torch.maximum(taken, mark)
    return torch.where(taken > 0, taken, gt_inds), best
