"""Prior anchors, kept from one training step to the next, and refined anchors."""

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Union

import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.models.task_modules.prior_generators import (
    AnchorGenerator,
    anchor_inside_flags,
)
from mmdet.structures.bbox import cat_boxes, get_box_tensor
from torch import Tensor

from ..task_modules.box_deltas import decode_boxes, from_planes, to_planes
from ..utils.device import without_autocast

if TYPE_CHECKING:
    from mmdet.models.dense_heads.anchor_head import AnchorHead as Base
else:
    Base = object

# What makes anchors plain: each depends on its cell alone.
GRID_METHODS = ('grid_priors', 'single_level_grid_priors', 'valid_flags')


class AnchorGrids:
    """Anchors of the largest feature maps so far; those of smaller maps are a part.

    A copy starts empty: an averaged or saved model has no use for them.
    """

    def __init__(self) -> None:
        self._grids: dict[Hashable, list[Tensor]] = {}

    def levels(
        self,
        generator: AnchorGenerator,
        sizes: Sequence[tuple],
        device: Union[torch.device, str],
    ) -> list[Tensor]:
        """Return the anchors of each level, (HWA, 4), float32, xyxy in pixels."""
        key = (str(device), torch.is_inference_mode_enabled())
        grids = self._grids.get(key)
        known = [(0, 0)] * len(sizes) if grids is None else [g.shape[:2] for g in grids]
        largest = [(max(h, i), max(w, j)) for (h, w), (i, j) in zip(sizes, known)]
        if grids is None or largest != [tuple(size) for size in known]:
            levels = generator.grid_priors(largest, device=device)
            grids = [x.view(*size, -1, 4) for x, size in zip(levels, largest)]
            self._grids[key] = grids
        return [grid[:h, :w].reshape(-1, 4) for grid, (h, w) in zip(grids, sizes)]

    def __deepcopy__(self, memo: dict) -> 'AnchorGrids':
        return AnchorGrids()

    def __reduce__(self) -> tuple:
        return AnchorGrids, ()


class PriorAnchors(Base):
    """The prior anchors A⁰ of a consistent head."""

    def has_plain_anchors(self) -> bool:
        """Return whether anchors are mmdet's plain ones, which shapes alone decide."""
        own, plain = type(self.prior_generator), AnchorGenerator
        return (
            self.base_class().get_anchors is AnchorHead.get_anchors
            and issubclass(own, plain)
            and all(getattr(own, m) is getattr(plain, m) for m in GRID_METHODS)
            and not getattr(self.prior_generator, 'use_box_type', False)
        )

    def get_anchors(
        self,
        featmap_sizes: Sequence[tuple],
        batch_img_metas: list[dict],
        device: Union[torch.device, str] = 'cuda',
    ) -> tuple[list, list]:
        """Return the base head's anchors and valid flags. Plain anchors are kept."""
        if not self.has_plain_anchors():
            return super().get_anchors(featmap_sizes, batch_img_metas, device=device)
        anchors = self._plain_anchors(featmap_sizes, device)
        flags = [
            self.prior_generator.valid_flags(featmap_sizes, meta['pad_shape'], device)
            for meta in batch_img_metas
        ]
        # Each image gets a list of its own: some heads write into it.
        return [list(anchors) for _ in flags], flags

    def _plain_anchors(
        self, sizes: Sequence[tuple], device: Union[torch.device, str]
    ) -> list[Tensor]:
        grids = self.__dict__.setdefault('_anchor_grids', AnchorGrids())
        return grids.levels(self.prior_generator, sizes, device)

    def prior_anchors(
        self, cls_scores: list[Tensor], batch_img_metas: list[dict]
    ) -> tuple[Tensor, Tensor]:
        """Return A⁰, (1, A, 4) float32, xyxy in pixels, and the valid anchors, (N, A).

        Raises:
            ValueError: If an image has no anchor inside it.
        """
        sizes = [tuple(scores.shape[-2:]) for scores in cls_scores]
        device = cls_scores[0].device
        if self.has_plain_anchors():
            anchors = self._plain_anchors(sizes, device)
            flags = padding_flags(self.prior_generator, sizes, batch_img_metas, device)
        else:
            images, levels = self.get_anchors(sizes, batch_img_metas, device=device)
            anchors, flags = images[0], torch.stack([torch.cat(x) for x in levels])
        boxes = get_box_tensor(cat_boxes(anchors)).float()
        border = self.train_cfg['allowed_border']
        return boxes[None], inside_flags(boxes, flags, batch_img_metas, border)


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
    planes = torch.where(has_area, to_planes(refined), to_planes(boxes))
    return from_planes(planes), valid & has_area
