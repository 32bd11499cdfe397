"""Max-IoU matching of a whole batch, in memory that grows with the anchors alone.

Rules and values are those of :class:`mmdet.models.task_modules.MaxIoUAssigner`, except
that a ground truth without area is matched with nothing. mmdet's matrix of ground
truths × anchors never exists as a whole: a search visits it in small blocks.
"""

from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.device import may_select_rows, may_use_kernels
from .block_search import search_blocks
from .dense_search import search_all
from .overlaps import BoxPlanes, iof

# Pairs of boxes and ignore regions compared at once.
BLOCK = 2**24


class MatchRule(NamedTuple):
    """Thresholds that turn overlaps into labels, named as in ``MaxIoUAssigner``.

    Attributes:
        pos_iou_thr: Lowest IoU of a positive.
        neg_iou_thr: A highest IoU below this is a negative.
        match_low_quality: Whether each ground truth also takes the boxes that overlap
            it most …
        min_pos_iou: … if they do so by at least this much, …
        gt_max_assign_all: … all of them, or only the first.
        ignore_iof_thr: Overlap with an ignore region above which a box is ignored. Not
            positive: no such rule.
        ignore_wrt_candidates: Whether that overlap is relative to the box's own area,
            else to the region's.
    """

    pos_iou_thr: float
    neg_iou_thr: float
    match_low_quality: bool = False
    min_pos_iou: float = 0.0
    gt_max_assign_all: bool = True
    ignore_iof_thr: float = -1
    ignore_wrt_candidates: bool = True


@torch.no_grad()
def match_max_iou(
    boxes: Tensor,
    gt_bboxes: Tensor,
    num_gts: Tensor,
    rule: MatchRule,
    valid: Optional[Tensor] = None,
    ignore_bboxes: Optional[Tensor] = None,
    select_rows: Optional[bool] = None,
) -> tuple[Tensor, Tensor]:
    """Match the boxes of a batch of images with their ground truths.

    Args:
        boxes: (N, A, 4), or (1, A, 4) if all images share them; float32, xyxy in
            pixels, finite.
        gt_bboxes: (N, G, 4), xyxy in pixels; rows beyond an image's own count are zero.
        num_gts: Number of ground truths per image, (N,) long.
        rule: Thresholds and further rules.
        valid: Boxes that take part, (N, A) bool. Default: all.
        ignore_bboxes: Ignore regions, (N, I, 4), xyxy in pixels, zero beyond an image's
            own.
        select_rows: Whether boxes may be selected by their values. Default: where the
            host need not wait for their number.

    Returns:
        ``gt_inds``, (N, A) long: -1 ignored or not valid, 0 negative, ``i + 1`` for
        ground truth i; and the highest IoU of each box, (N, A) float32: 0 in an image
        without ground truths, -1 for a box in an ignore region or not valid.
    """
    gt_bboxes = _one_or_more(gt_bboxes.to(boxes))
    excluded = None if valid is None else ~valid
    if rule.ignore_iof_thr > 0 and ignore_bboxes is not None:
        regions = _one_or_more(ignore_bboxes.to(boxes))
        covered = highest_iof(boxes, regions, rule.ignore_wrt_candidates)
        ignored = covered > rule.ignore_iof_thr
        excluded = ignored if excluded is None else excluded | ignored
    search = search_blocks if may_select_rows(boxes, select_rows) else search_all
    if may_use_kernels(boxes, select_rows):
        from .match_kernel import search_by_kernel as search
    gt_inds, best = search(boxes, gt_bboxes, num_gts, rule, excluded)
    # As in mmdet: without ground truths everything is background, even inside an
    # ignore region.
    has_gts = (num_gts > 0)[:, None]
    gt_inds.mul_(has_gts)
    best.mul_(has_gts)
    if valid is not None:
        gt_inds.masked_fill_(~valid, -1)
    return gt_inds, best


def highest_iof(boxes: Tensor, regions: Tensor, wrt_boxes: bool) -> Tensor:
    """Return each box's highest overlap with an ignore region of its image.

    Args:
        boxes: (N, A, 4) or (1, A, 4), float32, xyxy in pixels.
        regions: (N, I, 4), float32, xyxy in pixels.
        wrt_boxes: Whether the overlap is relative to the box, else to the region.

    Returns:
        (N, A) float32; 0 for a box that meets no region.
    """
    planes = BoxPlanes.of(boxes).at(slice(None), None)
    highest = boxes.new_zeros((len(regions), boxes.shape[1]))
    step = max(1, BLOCK // max(1, highest.numel()))
    for some in regions.split(step, dim=1):
        others = BoxPlanes.of(some).at(..., None)
        pairs = (planes, others) if wrt_boxes else (others, planes)
        highest = torch.maximum(highest, iof(*pairs).amax(dim=1))
    return highest


def _one_or_more(boxes: Tensor) -> Tensor:
    """Append an empty box to (N, 0, 4) boxes, so that a maximum over them exists."""
    return boxes if boxes.shape[1] else F.pad(boxes, (0, 0, 0, 1))
