"""Encoding and decoding of a batch of boxes, coordinate by coordinate.

mmdet's :class:`DeltaXYWHBBoxCoder` interleaves the coordinates of a box, and copies its
means and deviations to the device as lists, each time it is called. Here the same
operations run on whole coordinates (..., A), with plain numbers.
"""

import math
from typing import Any, NamedTuple, Optional

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder, DeltaXYWHBBoxCoder
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor


class _Scale(NamedTuple):
    """A plain coder's numbers, of the centre's and of the size's two deltas."""

    means: tuple[float, float]
    stds: tuple[float, float]


def to_planes(boxes: Tensor) -> Tensor:
    """View (..., 4) as (4, ...). ONNX has no negative dimensions."""
    return boxes.movedim(boxes.dim() - 1, 0)


def from_planes(planes: Tensor) -> Tensor:
    """View (4, ...) as (..., 4)."""
    return planes.movedim(0, planes.dim() - 1)


def decode_boxes(coder: BaseBBoxCoder, boxes: Tensor, deltas: Tensor) -> Tensor:
    """Move boxes by their deltas, as ``coder.decode`` does; not clipped.

    Args:
        coder: mmdet's box coder.
        boxes: (N, A, 4) or (1, A, 4), or else (P, 4), xyxy in pixels, float32.
        deltas: (N, A, 4), or else (P, 4), float32.

    Returns:
        As ``deltas``, xyxy in pixels, float32; each coordinate is contiguous.
    """
    scale = _scale_of(coder)
    if scale is None:
        boxes = boxes.expand_as(deltas).reshape(-1, 4)
        decoded = coder.decode(boxes, deltas.reshape(-1, 4))
        return get_box_tensor(decoded).view_as(deltas)
    centre, size = _centre_and_size(boxes)
    planes = to_planes(deltas)
    shift, growth = (
        part if (mean, std) == (0, 1) else part * std + mean
        for part, mean, std in zip((planes[:2], planes[2:]), *scale)
    )
    limit = abs(math.log(16 / 1000))  # mmdet's `wh_ratio_clip`
    centre = centre + size * shift
    half = size * growth.clamp(-limit, limit).exp_() * 0.5
    return from_planes(torch.cat([centre - half, centre + half]))


def encode_boxes(coder: BaseBBoxCoder, boxes: Tensor, gt_bboxes: Tensor) -> Tensor:
    """Return the deltas that move boxes to ground truths, as ``coder.encode`` does.

    Args:
        coder: mmdet's box coder.
        boxes: (P, 4), xyxy in pixels, float32.
        gt_bboxes: (P, 4), xyxy in pixels, float32.

    Returns:
        (P, 4), float32.
    """
    scale = _scale_of(coder)
    if scale is None:
        return coder.encode(boxes, gt_bboxes)
    centre, size = _centre_and_size(boxes)
    gt_centre, gt_size = _centre_and_size(gt_bboxes)
    parts = (gt_centre - centre) / size, torch.log(gt_size / size)
    deltas = [
        part if (mean, std) == (0, 1) else (part - mean) / std
        for part, mean, std in zip(parts, *scale)
    ]
    return from_planes(torch.cat(deltas))


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (2, ...) each: x and y of the centre, width and height."""
    planes = to_planes(boxes)
    low, high = planes[:2], planes[2:]
    return (low + high) * 0.5, high - low


def _scale_of(coder: Any) -> Optional[_Scale]:
    """Return a coder's numbers if it is plain enough, else ``None``."""
    if type(coder) is not DeltaXYWHBBoxCoder or coder.add_ctr_clamp:
        return None
    for values in (coder.means, coder.stds):
        if len(values) != 4 or values[0] != values[1] or values[2] != values[3]:
            return None
    return _Scale(tuple(coder.means[::2]), tuple(coder.stds[::2]))
