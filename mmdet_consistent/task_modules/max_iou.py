"""Max-IoU matching of a whole batch, in memory that grows with the anchors alone.

Rules and values are exactly those of
:class:`mmdet.models.task_modules.MaxIoUAssigner`. Its (ground truths × anchors) matrix
of each image is visited here in small blocks with a running best.
"""

from collections.abc import Iterator
from typing import NamedTuple, Optional, Union

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from ..utils.device import may_select_rows

# Pairs per block: a few of its arrays fit into a CPU core's cache; a GPU prefers few,
# large launches.
CPU_BLOCK, GPU_BLOCK = 2**16, 2**24


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
    block: Optional[int] = None,
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
        block: Pairs per block. Default: what suits the device.
        select_rows: Whether columns and blocks may be selected by their values.
            Default: where the host need not wait for their number.

    Returns:
        ``gt_inds``, (N, A) long: -1 ignored or not valid, 0 negative, ``i + 1`` for
        ground truth i; and the highest IoU of each box, (N, A) float32: 0 in an image
        without ground truths, -1 for a box in an ignore region.
    """
    select = may_select_rows(boxes, select_rows)
    shape = (len(gt_bboxes), boxes.shape[1])
    out = None if valid is None else ~valid
    if rule.ignore_iof_thr > 0 and ignore_bboxes is not None:
        iof = _highest_iof(boxes, ignore_bboxes, rule.ignore_wrt_candidates)
        inside = iof > rule.ignore_iof_thr
        out = inside if out is None else out | inside

    best = boxes.new_full(shape, -1.0)
    best_index = torch.zeros(shape, dtype=torch.long, device=boxes.device)
    search = _LowQualitySearch(rule, num_gts, gt_bboxes.shape[1], select)
    for anchors, gts, overlaps in _overlap_blocks(boxes, gt_bboxes, select, block):
        if out is not None:
            overlaps.masked_fill_(out[:, None, anchors], -1)
        # Of equal ground truths the first one wins, as in `Tensor.max`.
        block_best, block_index = overlaps.max(dim=1)
        better = block_best > best[:, anchors]
        best[:, anchors] = torch.where(better, block_best, best[:, anchors])
        best_index[:, anchors] = torch.where(
            better, block_index + gts.start, best_index[:, anchors]
        )
        if rule.match_low_quality:
            search.update(anchors, gts, overlaps)

    gt_inds = torch.full_like(best_index, -1)
    gt_inds.masked_fill_((best >= 0) & (best < rule.neg_iou_thr), 0)
    gt_inds = torch.where(best >= rule.pos_iou_thr, best_index + 1, gt_inds)
    if rule.match_low_quality:
        taken = search.low_quality_matches(boxes, gt_bboxes, out)
        gt_inds = torch.where(taken > 0, taken, gt_inds)
    # As in mmdet: without ground truths everything is background, even inside an
    # ignore region.
    empty = (num_gts == 0)[:, None]
    gt_inds.masked_fill_(empty, 0)
    best.masked_fill_(empty, 0)
    if valid is not None:
        gt_inds.masked_fill_(~valid, -1)
    return gt_inds, best


class _LowQualitySearch:
    """Finds the boxes that overlap a ground truth most, block by block.

    The highest overlap of each ground truth is known only after all blocks. So the
    blocks where it occurred are noted and visited once more: a small part.
    """

    def __init__(
        self, rule: MatchRule, num_gts: Tensor, width: int, select: bool
    ) -> None:
        self.rule = rule
        self.select = select
        self.index = torch.arange(width, device=num_gts.device)
        self.real = self.index < num_gts[:, None]
        self.blocks: list[slice] = []
        self.values: list[Tensor] = []
        self.places: list[Tensor] = []

    def update(self, anchors: slice, gts: slice, overlaps: Tensor) -> None:
        """Note a block's highest overlap of each ground truth, and where it occurs."""
        value, place = overlaps.max(dim=2)
        if gts.start == 0:
            self.blocks.append(anchors)
            self.values.append(value.new_full(self.real.shape, -1))
            self.places.append(place.new_zeros(self.real.shape))
        self.values[-1][:, gts] = value
        self.places[-1][:, gts] = place + anchors.start

    def low_quality_matches(
        self, boxes: Tensor, gt_bboxes: Tensor, out: Optional[Tensor]
    ) -> Tensor:
        """Return ``i + 1`` of the last ground truth i to take a box, or 0: (N, A)."""
        taken = torch.zeros(
            (len(gt_bboxes), boxes.shape[1]), dtype=torch.long, device=boxes.device
        )
        if not self.blocks:
            return taken
        values = torch.stack(self.values)
        top, first_block = values.max(dim=0)
        takes = self.real & (top >= self.rule.min_pos_iou)
        marks = (self.index + 1) * takes
        if not self.rule.gt_max_assign_all:
            first = torch.stack(self.places).gather(0, first_block[None])[0]
            return taken.scatter_reduce_(1, first, marks, 'amax')
        for block, value in zip(self.blocks, values):
            columns: Union[slice, Tensor] = slice(None)
            if self.select and len(self.blocks) > 1:
                here = (value == top) & takes
                columns = here.any(dim=0).nonzero().squeeze(1)
            chosen, highest, mark = (
                x[:, columns] for x in (gt_bboxes, top[..., None], marks[..., None])
            )
            inner = _overlap_blocks(boxes[:, block], chosen, self.select)
            for part, gts, overlaps in inner:
                part = slice(block.start + part.start, block.start + part.stop)
                if out is not None:
                    overlaps.masked_fill_(out[:, None, part], -1)
                equal = (overlaps == highest[:, gts]) * mark[:, gts]
                taken[:, part] = torch.maximum(taken[:, part], equal.amax(dim=1))
        return taken


def _overlap_blocks(
    boxes: Tensor, gt_bboxes: Tensor, select: bool, block: Optional[int] = None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the IoU of all pairs by block: slices of A and G, IoUs (N, g, a)."""
    num_images, num_gts = gt_bboxes.shape[:2]
    num_boxes = boxes.shape[1]
    if select:
        gt_step = min(max(num_gts, 1), 8)
        box_step = max(1, (block or CPU_BLOCK) // (num_images * gt_step))
    else:  # all boxes at once: nothing has to be selected, so nothing synchronises
        box_step = max(num_boxes, 1)
        gt_step = max(1, (block or GPU_BLOCK) // (num_images * box_step))
    planes = [plane.contiguous() for plane in boxes.unbind(-1)]
    areas = (planes[2] - planes[0]) * (planes[3] - planes[1])
    gt_planes = [plane.unsqueeze(2) for plane in gt_bboxes.to(boxes).unbind(-1)]
    gt_areas = (gt_planes[2] - gt_planes[0]) * (gt_planes[3] - gt_planes[1])
    for start in range(0, num_boxes, box_step):
        anchors = slice(start, min(start + box_step, num_boxes))
        parts = [plane[:, None, anchors] for plane in planes]
        area = areas[:, None, anchors]
        for first in range(0, num_gts, gt_step):
            gts = slice(first, min(first + gt_step, num_gts))
            x1, y1, x2, y2 = (plane[:, gts] for plane in gt_planes)
            yield anchors, gts, _iou(parts, area, (x1, y1, x2, y2), gt_areas[:, gts])


def _iou(boxes: list, areas: Tensor, gts: tuple, gt_areas: Tensor) -> Tensor:
    """Compute the IoU by the very operations of mmdet's ``bbox_overlaps``."""
    width = torch.minimum(gts[2], boxes[2]).sub_(torch.maximum(gts[0], boxes[0]))
    height = torch.minimum(gts[3], boxes[3]).sub_(torch.maximum(gts[1], boxes[1]))
    overlap = width.clamp_(min=0).mul_(height.clamp_(min=0))
    union = (gt_areas + areas).sub_(overlap).clamp_(min=1e-6)
    return overlap.div_(union)


def paired_iou(boxes: Tensor, gt_bboxes: Tensor) -> Tensor:
    """Compute the IoU of each box with the ground truth in the same row.

    Args:
        boxes: (P, 4), float32, xyxy in pixels, finite.
        gt_bboxes: (P, 4), xyxy in pixels.

    Returns:
        (P,) float32, 0 to 1.
    """
    planes, gt_planes = boxes.unbind(-1), gt_bboxes.to(boxes).unbind(-1)
    areas, gt_areas = ((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (planes, gt_planes))
    return _iou(list(planes), areas, gt_planes, gt_areas)


def _highest_iof(boxes: Tensor, regions: Tensor, wrt_boxes: bool) -> Tensor:
    """Return each box's highest overlap with an ignore region, (N, A), or 0."""
    boxes = boxes.expand(len(regions), -1, -1)
    highest = boxes.new_zeros(boxes.shape[:2])
    for index in range(regions.shape[1]):
        region = regions[:, index : index + 1].to(boxes)
        if wrt_boxes:
            overlaps = bbox_overlaps(boxes, region, mode='iof')[..., 0]
        else:
            overlaps = bbox_overlaps(region, boxes, mode='iof')[:, 0]
        highest = torch.maximum(highest, overlaps)
    return highest
