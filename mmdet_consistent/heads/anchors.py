"""Prior anchors, kept from one training step to the next, and refined anchors."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.models.task_modules.prior_generators import (
    AnchorGenerator,
    anchor_inside_flags,
)
from torch import Tensor

from ..task_modules.box_deltas import decode_boxes
from ..utils.device import without_autocast


class ShapeCache:
    """Results that depend on shapes alone, for the shapes used last.

    A copy starts empty: an averaged or saved model has no use for them.

    Args:
        capacity: Number of results kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._results: dict[Hashable, Any] = {}

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result kept for ``key``, or compute and keep it."""
        result = self._results.pop(key) if key in self._results else compute()
        if len(self._results) >= self.capacity:
            del self._results[next(iter(self._results))]
        self._results[key] = result  # the last of the dict is the one used last
        return result

    def __deepcopy__(self, memo: dict) -> 'ShapeCache':
        return ShapeCache(self.capacity)

    def __reduce__(self) -> tuple:
        return ShapeCache, (self.capacity,)


def padding_flags(
    prior_generator: AnchorGenerator,
    sizes: Sequence[tuple],
    batch_img_metas: list[dict],
    device: torch.device,
) -> Tensor:
    """Return which anchors have a cell that meets their own image.

    The flags are those of ``prior_generator.valid_flags``. They are set by slices, so
    that no size has to be copied to the device.

    Args:
        prior_generator: mmdet's anchor generator.
        sizes: (H, W) of each level.
        batch_img_metas: ``pad_shape`` of each image.
        device: Device of the result.

    Returns:
        (N, ΣHWA) bool.
    """
    anchors = prior_generator.num_base_priors
    cells = [h * w * a for (h, w), a in zip(sizes, anchors)]
    flags = torch.ones(
        len(batch_img_metas), sum(cells), dtype=torch.bool, device=device
    )
    for image, meta in zip(flags, batch_img_metas):
        height, width = meta['pad_shape'][:2]
        for level, (h, w), stride in zip(
            image.split(cells), sizes, prior_generator.strides
        ):
            grid = level.view(h, w, -1)
            rows, columns = math.ceil(height / stride[1]), math.ceil(width / stride[0])
            if rows < h:
                grid[rows:] = False
            if columns < w:
                grid[:, columns:] = False
    return flags


def inside_flags(
    boxes: Tensor, flags: Tensor, batch_img_metas: list[dict], allowed_border: int
) -> Tensor:
    """Return which anchors of each image take part in training.

    Args:
        boxes: A⁰, (A, 4), float32, xyxy in pixels.
        flags: Valid flags, (N, A) bool.
        batch_img_metas: ``img_shape`` of each image.
        allowed_border: Pixels by which an anchor may leave the image; negative: any.

    Returns:
        (N, A) bool.

    Raises:
        ValueError: If an image has no anchor inside it.
    """
    if allowed_border < 0:
        return flags
    valid = torch.stack(
        [
            anchor_inside_flags(boxes, own, meta['img_shape'][:2], allowed_border)
            for own, meta in zip(flags, batch_img_metas)
        ]
    )
    if not valid.any(dim=1).all():
        raise ValueError(
            f'train_cfg.allowed_border={allowed_border} excludes every anchor of an '
            'image in this batch: set it to -1 to use all anchors, or give the anchor '
            'generator smaller anchors'
        )
    return valid


@torch.no_grad()
def refine_boxes(
    bbox_coder: BaseBBoxCoder, boxes: Tensor, valid: Tensor, deltas: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute Aᵏ⁺¹ = decode(Aᵏ, tᵏ), detached, in float32, not clipped.

    Args:
        bbox_coder: Box coder of stage k.
        boxes: Aᵏ, (N, A, 4) or (1, A, 4), float32, xyxy in pixels.
        valid: Anchors that take part, (N, A) bool.
        deltas: tᵏ, (N, A, 4), any floating dtype.

    Returns:
        Aᵏ⁺¹, (N, A, 4), and the anchors that are still valid. A box that becomes
        non-finite or empty is excluded from all later stages and keeps its last valid
        value.
    """
    with without_autocast(boxes):
        refined = decode_boxes(bbox_coder, boxes, deltas.detach().float())
    x1, y1, x2, y2 = refined.unbind(-1)
    width = x2 - x1
    area = width * (y2 - y1)
    # False for a NaN, too.
    has_area = (width > 0) & (area > 0) & (area < float('inf'))
    planes = torch.where(has_area, refined.movedim(-1, 0), boxes.movedim(-1, 0))
    return planes.movedim(0, -1), valid & has_area
