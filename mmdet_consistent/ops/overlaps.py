"""IoU of boxes."""

import torch
from torch import Tensor


def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    ious: Tensor,
    mode: int,
    aligned: bool,
    offset: int,
) -> None:
    """Compute intersection over union, or over the first box's area.

    Args:
        bboxes1: (M, 4), xyxy in pixels.
        bboxes2: (N, 4), xyxy in pixels; N is M if ``aligned``.
        ious: (M, N), or (M,) if ``aligned``; receives the result.
        mode: 0: over the union; 1: over the area of the first box.
        aligned: Compare boxes of equal index instead of all pairs.
        offset: 0 or 1. A box's width is ``x2 - x1 + offset``.
    """
    first = bboxes1 if aligned else bboxes1[:, None]
    upper = torch.maximum(first[..., :2], bboxes2[:, :2])
    lower = torch.minimum(first[..., 2:], bboxes2[:, 2:])
    both = (lower - upper + offset).clamp(min=0).prod(-1)
    over = (first[..., 2:] - first[..., :2] + offset).prod(-1)
    if mode == 0:
        over = over + (bboxes2[:, 2:] - bboxes2[:, :2] + offset).prod(-1) - both
    ious.copy_(both / over)
