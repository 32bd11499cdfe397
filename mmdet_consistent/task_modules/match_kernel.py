"""Max-IoU search as Triton kernels: each box meets its own image's ground truths.

Overlaps live in registers alone. They are rounded as in the other searches: divisions
are exact to the last bit, and no multiplication is fused with an addition.
"""

from typing import TYPE_CHECKING, Optional

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..utils.device import launch

if TYPE_CHECKING:
    from .max_iou import MatchRule

BOXES = 256  # per program


def search_by_kernel(
    boxes: Tensor,
    gt_bboxes: Tensor,
    num_gts: Tensor,
    rule: 'MatchRule',
    excluded: Optional[Tensor] = None,
) -> tuple[Tensor, Tensor]:
    """Match boxes with ground truths, all in one launch, or two.

    Arguments and results are those of :func:`search_blocks`.
    """
    shape = (num_images, num_boxes) = len(gt_bboxes), boxes.shape[1]
    gt_bboxes, num_gts = gt_bboxes.contiguous(), num_gts.contiguous()
    if excluded is None:
        excluded = torch.zeros(shape, dtype=torch.bool, device=boxes.device)
    best = torch.empty(shape, device=boxes.device)
    gt_inds = torch.empty(shape, dtype=torch.long, device=boxes.device)
    tops = torch.full(gt_bboxes.shape[:2], -1, dtype=torch.long, device=boxes.device)
    image_stride = 0 if len(boxes) == 1 else boxes.stride(0)
    inputs = (
        *(boxes, image_stride, boxes.stride(1), boxes.stride(2)),
        *(excluded.contiguous().view(torch.uint8), gt_bboxes, num_gts, tops),
    )
    sizes = num_boxes, gt_bboxes.shape[1]
    grid = (triton.cdiv(num_boxes, BOXES), num_images)
    options = dict(BOXES=BOXES, enable_fp_fusion=False)
    low_quality = rule.match_low_quality
    launch(
        _match_kernel,
        grid,
        *(*inputs, best, gt_inds, *sizes, rule.pos_iou_thr, rule.neg_iou_thr),
        FIND_TOPS=low_quality,
        **options,
    )
    if low_quality:
        launch(
            _low_quality_kernel,
            grid,
            *(*inputs, gt_inds, *sizes, rule.min_pos_iou),
            ALL=rule.gt_max_assign_all,
            **options,
        )
    return gt_inds, best


@triton.jit
def _load_box(ptr, stride, mask):
    """Load boxes as coordinates."""
    x1 = tl.load(ptr, mask=mask, other=0.0)
    y1 = tl.load(ptr + stride, mask=mask, other=0.0)
    x2 = tl.load(ptr + 2 * stride, mask=mask, other=0.0)
    y2 = tl.load(ptr + 3 * stride, mask=mask, other=0.0)
    return x1, y1, x2, y2


@triton.jit
def _iou(x1, y1, x2, y2, gt_ptr):
    """Return the boxes' IoU with a ground truth, and the latter's area."""
    gt_x1, gt_y1 = tl.load(gt_ptr), tl.load(gt_ptr + 1)
    gt_x2, gt_y2 = tl.load(gt_ptr + 2), tl.load(gt_ptr + 3)
    width = tl.maximum(tl.minimum(gt_x2, x2) - tl.maximum(gt_x1, x1), 0.0)
    height = tl.maximum(tl.minimum(gt_y2, y2) - tl.maximum(gt_y1, y1), 0.0)
    common = width * height
    gt_area = (gt_x2 - gt_x1) * (gt_y2 - gt_y1)
    union = (gt_area + (x2 - x1) * (y2 - y1)) - common
    return tl.div_rn(common, tl.maximum(union, 1e-6)), gt_area


@triton.jit
def _match_kernel(
    box_ptr,
    image_stride,
    box_stride,
    coordinate_stride,
    excluded_ptr,
    gt_ptr,
    num_gts_ptr,
    top_ptr,
    best_ptr,
    gt_inds_ptr,
    num_boxes,
    max_gts,
    pos_iou_thr,
    neg_iou_thr,
    FIND_TOPS: tl.constexpr,
    BOXES: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    box = tl.program_id(0) * BOXES + tl.arange(0, BOXES)
    exists = box < num_boxes
    own = box_ptr + image * image_stride + box.to(tl.int64) * box_stride
    x1, y1, x2, y2 = _load_box(own, coordinate_stride, exists)
    here = image * num_boxes + box
    takes_part = tl.load(excluded_ptr + here, mask=exists, other=1) == 0
    best = tl.full((BOXES,), -1.0, tl.float32)
    index = tl.zeros((BOXES,), tl.int32)
    for gt in range(0, tl.load(num_gts_ptr + image).to(tl.int32)):
        place = image * max_gts + gt
        iou, _ = _iou(x1, y1, x2, y2, gt_ptr + place * 4)
        iou = tl.where(takes_part, iou, -1.0)
        is_better = iou > best  # of equal ground truths the first one wins
        best = tl.where(is_better, iou, best)
        index = tl.where(is_better, gt, index)
        if FIND_TOPS:
            # The highest IoU, then the first box: one maximum of both in 64 bits. The
            # bits of a number that is not negative sort as it does.
            bits = iou.to(tl.int32, bitcast=True).to(tl.int64) << 32
            key = tl.where(takes_part, bits | (0x7FFFFFFF - box).to(tl.int64), -1)
            tl.atomic_max(top_ptr + place, tl.max(key, axis=0))
    result = tl.where(best < neg_iou_thr, 0, -1)
    result = tl.where(takes_part, result, -1)
    result = tl.where(best >= pos_iou_thr, index + 1, result)
    tl.store(best_ptr + here, best, mask=exists)
    tl.store(gt_inds_ptr + here, result.to(tl.int64), mask=exists)


@triton.jit
def _low_quality_kernel(
    box_ptr,
    image_stride,
    box_stride,
    coordinate_stride,
    excluded_ptr,
    gt_ptr,
    num_gts_ptr,
    top_ptr,
    gt_inds_ptr,
    num_boxes,
    max_gts,
    min_pos_iou,
    ALL: tl.constexpr,
    BOXES: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    box = tl.program_id(0) * BOXES + tl.arange(0, BOXES)
    exists = box < num_boxes
    own = box_ptr + image * image_stride + box.to(tl.int64) * box_stride
    x1, y1, x2, y2 = _load_box(own, coordinate_stride, exists)
    here = image * num_boxes + box
    takes_part = tl.load(excluded_ptr + here, mask=exists, other=1) == 0
    taken = tl.load(gt_inds_ptr + here, mask=exists, other=0).to(tl.int32)
    for gt in range(0, tl.load(num_gts_ptr + image).to(tl.int32)):
        place = image * max_gts + gt
        key = tl.load(top_ptr + place)
        top = (key >> 32).to(tl.int32).to(tl.float32, bitcast=True)
        iou, gt_area = _iou(x1, y1, x2, y2, gt_ptr + place * 4)
        if ALL:
            hit = iou == top
        else:
            hit = box == 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)
        counts = (key >= 0) & (top >= min_pos_iou) & (gt_area > 0)
        # Of ground truths that take the same box, the last one has it.
        taken = tl.where(hit & takes_part & counts, gt + 1, taken)
    tl.store(gt_inds_ptr + here, taken.to(tl.int64), mask=exists)
