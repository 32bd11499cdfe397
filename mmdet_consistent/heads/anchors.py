"""Prior anchors, kept from one training step to the next, and refined anchors."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from ..utils.device import without_autocast


class ShapeCache:
    """Results that depend on shapes alone, for the shapes seen last.

    A copy starts empty: an averaged or saved model has no use for them.

    Args:
        capacity: Number of results kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._results: dict[Hashable, Any] = {}

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result kept for ``key``, or compute and keep it."""
        if key not in self._results:
            if len(self._results) >= self.capacity:
                del self._results[next(iter(self._results))]
            self._results[key] = compute()
        return self._results[key]

    def __deepcopy__(self, memo: dict) -> 'ShapeCache':
        return ShapeCache(self.capacity)

    def __reduce__(self) -> tuple:
        return ShapeCache, (self.capacity,)


def inside_flags(
    boxes: Tensor, flags: list, batch_img_metas: list[dict], allowed_border: int
) -> Tensor:
    """Return which anchors of each image take part in training.

    Args:
        boxes: A⁰, (A, 4), float32, xyxy in pixels.
        flags: Valid flags of each image and level.
        batch_img_metas: ``img_shape`` of each image.
        allowed_border: Pixels by which an anchor may leave the image; negative: any.

    Returns:
        (N, A) bool.

    Raises:
        ValueError: If an image has no anchor inside it.
    """
    valid = torch.stack(
        [
            anchor_inside_flags(
                boxes, torch.cat(levels), meta['img_shape'][:2], allowed_border
            )
            for levels, meta in zip(flags, batch_img_metas)
        ]
    )
    if allowed_border >= 0 and not valid.any(dim=1).all():
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
    boxes = boxes.expand_as(deltas)
    with without_autocast(boxes):
        refined = bbox_coder.decode(
            boxes.flatten(0, 1), deltas.detach().float().flatten(0, 1)
        )
    refined = get_box_tensor(refined).view_as(boxes)
    x1, y1, x2, y2 = refined.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    # False for a NaN, too.
    has_area = (x2 > x1) & (y2 > y1) & (area > 0) & (area < float('inf'))
    return torch.where(has_area[..., None], refined, boxes), valid & has_area
