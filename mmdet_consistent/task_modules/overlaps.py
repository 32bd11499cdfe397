"""Overlaps of boxes, coordinate by coordinate, by the very operations of mmdet's."""

from typing import Any, NamedTuple

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

# What mmdet's `bbox_overlaps` puts in place of a smaller area.
SMALLEST_AREA = 1e-6


class BoxPlanes(NamedTuple):
    """Coordinates and areas of boxes (..., 4) as five tensors of shape (...).

    Indexing applies to all five.
    """

    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    area: Tensor

    @classmethod
    def of(cls, boxes: Any) -> 'BoxPlanes':
        """Split boxes (..., 4), float32, xyxy in pixels."""
        x1, y1, x2, y2 = (x.contiguous() for x in get_box_tensor(boxes).unbind(-1))
        return cls(x1, y1, x2, y2, (x2 - x1) * (y2 - y1))

    def at(self, *index: Any) -> 'BoxPlanes':
        """Index every plane."""
        return BoxPlanes(*(plane[index] for plane in self))


def intersection(a: BoxPlanes, b: BoxPlanes) -> Tensor:
    """Return the area that boxes have in common, (...)."""
    width = torch.minimum(a.x2, b.x2).sub_(torch.maximum(a.x1, b.x1)).clamp_(min=0)
    height = torch.minimum(a.y2, b.y2).sub_(torch.maximum(a.y1, b.y1)).clamp_(min=0)
    return width.mul_(height)


def iou(a: BoxPlanes, b: BoxPlanes) -> Tensor:
    """Return the IoU of boxes, (...), float32, 0 to 1."""
    common = intersection(a, b)
    union = (a.area + b.area).sub_(common).clamp_(min=SMALLEST_AREA)
    return common.div_(union)


def iof(a: BoxPlanes, b: BoxPlanes) -> Tensor:
    """Return the fraction of boxes a that is covered by boxes b, (...), float32."""
    return intersection(a, b).div_(a.area.clamp(min=SMALLEST_AREA))


def paired_iou(boxes: Tensor, gt_bboxes: Tensor) -> Tensor:
    """Compute the IoU of each box with the ground truth in the same row.

    Args:
        boxes: (P, 4), float32, xyxy in pixels, finite.
        gt_bboxes: (P, 4), xyxy in pixels.

    Returns:
        (P,) float32, 0 to 1.
    """
    return iou(BoxPlanes.of(gt_bboxes.to(boxes)), BoxPlanes.of(boxes))
