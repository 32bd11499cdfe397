"""Box loss of one stage."""

from typing import Any

import torch
from mmdet.models import losses as mmdet_losses
from mmdet.models.task_modules.coders import BaseBBoxCoder
from torch import Tensor

from ..task_modules.box_deltas import decode_boxes, encode_boxes
from .targets import StageTargets

# Losses that compare boxes whatever `reg_decoded_bbox` says.
IOU_LOSSES = tuple(
    loss for name, loss in vars(mmdet_losses).items() if name.endswith('IoULoss')
)
# Losses that add up one term per row, so that masked rows can cost nothing. Any other
# loss gets the positives alone, which makes the host wait for a GPU.
ROWWISE_LOSSES = tuple(
    getattr(mmdet_losses, name)
    for name in (
        *('L1Loss', 'SmoothL1Loss', 'BalancedL1Loss', 'MSELoss'),
        *('IoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss'),
    )
)


class BoxLoss:
    """L_reg of one stage, over its positives.

    Args:
        module: mmdet's loss module.
        bbox_coder: The stage's box coder.
        uses_decoded_boxes: Whether the loss compares boxes in pixels instead of deltas.
    """

    def __init__(
        self, module: Any, bbox_coder: BaseBBoxCoder, uses_decoded_boxes: bool
    ) -> None:
        self.module = module
        self.bbox_coder = bbox_coder
        self.uses_decoded_boxes = uses_decoded_boxes

    @property
    def is_rowwise(self) -> bool:
        """True if the loss sums one term per row and divides by ``avg_factor``."""
        return is_rowwise(self.module)

    def __call__(self, deltas: Tensor, targets: StageTargets) -> Tensor:
        """Compute the loss, divided by the stage's normaliser.

        Args:
            deltas: tᵏ, (N, A, 4), any floating dtype.
            targets: Training targets of the stage.

        Returns:
            A scalar: a differentiable zero if the stage has no positives.
        """
        rows = targets.box_rows(select=targets.select_rows or not self.is_rowwise)
        pred = deltas.flatten(0, 1)[rows]
        if len(pred) == 0:
            return pred.sum()
        is_positive = targets.positive.flatten()[rows, None]
        anchors, gt_bboxes = targets.boxes_of(rows), targets.matched_bboxes(rows)
        pred = torch.where(is_positive, pred, 0)
        if self.uses_decoded_boxes:
            pred = decode_boxes(self.bbox_coder, anchors, pred)
            target = gt_bboxes
        else:
            target = encode_boxes(self.bbox_coder, anchors, gt_bboxes)
        # A row that is not positive is its own target, and so costs nothing.
        target = torch.where(is_positive, target, pred.detach())
        if self.is_rowwise:  # weights would make the host wait for a GPU
            return self.module(pred, target, avg_factor=targets.avg_factor)
        weight = torch.ones_like(target)
        return self.module(pred, target, weight, avg_factor=targets.avg_factor)


def is_rowwise(loss: Any) -> bool:
    """Return whether a box loss sums one term per row and divides by ``avg_factor``."""
    return type(loss) in ROWWISE_LOSSES and loss.reduction == 'mean'
