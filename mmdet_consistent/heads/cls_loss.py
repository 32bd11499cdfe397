"""mmdet's losses for the anchors of several stages."""

from collections.abc import Sequence
from typing import Union

import torch
from mmdet.models import losses as mmdet_losses
from torch import Tensor, nn

from ..losses import focal_losses
from ..losses.layout import class_rows, flatten_levels, split_levels
from .targets import StageTargets

# Box losses that are a sum over rows, each row by itself.
SUMMED_BOX_LOSSES = tuple(
    getattr(mmdet_losses, name)
    for name in (
        'L1Loss',
        'SmoothL1Loss',
        'BalancedL1Loss',
        'MSELoss',
        'IoULoss',
        'GIoULoss',
        'DIoULoss',
        'CIoULoss',
    )
)


# What a subclass may not have changed if stage 0 is to be computed with the others.
SEAMS = ('get_anchors', 'get_targets', '_get_targets_single', 'loss_by_feat_single')


def keeps_seams(head: type, ours: type) -> bool:
    """Whether a head class makes targets and first-stage losses as ours does."""
    return all(getattr(head, name) is getattr(ours, name) for name in SEAMS)


def sums_over_anchors(loss: nn.Module) -> bool:
    """Whether a box loss is a sum over rows, divided by ``avg_factor``."""
    return type(loss) in SUMMED_BOX_LOSSES and loss.reduction == 'mean'


def is_plain_focal(loss: nn.Module) -> bool:
    """Whether a loss is mmdet's sigmoid focal loss, summed and normalised."""
    return (
        type(loss) is mmdet_losses.FocalLoss
        and loss.use_sigmoid
        and not loss.activated
        and loss.reduction == 'mean'
    )


def is_plain_quality(loss: nn.Module) -> bool:
    """Whether a loss is mmdet's quality focal loss, summed and normalised."""
    return (
        type(loss) is mmdet_losses.QualityFocalLoss
        and not loss.activated
        and loss.reduction == 'mean'
    )


def label_set_losses(
    losses: Sequence[nn.Module],
    levels: list[Tensor],
    num_channels: int,
    targets: Sequence[StageTargets],
) -> list[Tensor]:
    """Loss of one classification output under the label sets of several stages.

    The plain focal loss is computed for all sets at once, any other set by set; the
    quality focal loss in float32, on (labels, quality).

    Args:
        losses: Each stage's loss module.
        levels: Logits of each level, (N, A·C, H, W).
        num_channels: C.
        targets: Each stage's targets.

    Returns:
        A scalar for each stage, divided by its ``cls_avg_factor``.

    Raises:
        ValueError: If the loss is on the quality of boxes, and a target has none.
    """
    if not targets or not is_plain_focal(losses[0]):
        flat = flatten_levels(levels, num_channels).flatten(0, 1)
        if targets and isinstance(losses[0], mmdet_losses.QualityFocalLoss):
            flat = flat.float()
        return [
            loss(
                flat,
                _wanted(loss, target),
                target.label_weights.flatten(),
                avg_factor=target.cls_avg_factor,
            )
            for loss, target in zip(losses, targets)
        ]
    labels = torch.stack([target.labels for target in targets])
    weights = torch.stack([target.label_weights for target in targets])
    sums = focal_losses(
        [class_rows(scores, num_channels) for scores in levels],
        split_levels(labels, levels, num_channels),
        split_levels(weights, levels, num_channels),
        losses[0].gamma,
        losses[0].alpha,
    )
    eps = torch.finfo(torch.float32).eps  # as mmdet's weight_reduce_loss
    return [
        loss.loss_weight * value / (target.cls_avg_factor + eps)
        for loss, value, target in zip(losses, sums, targets)
    ]


def _wanted(
    loss: nn.Module, target: StageTargets
) -> Union[Tensor, tuple[Tensor, Tensor]]:
    """What mmdet's loss takes as target: labels (N·A,), and quality if it wants it."""
    labels = target.labels.flatten()
    if not isinstance(loss, mmdet_losses.QualityFocalLoss):
        return labels
    if target.quality is None:
        raise ValueError(
            "loss_cls.type='QualityFocalLoss' wants the IoU of each positive's box "
            "beside its label: add additions=[dict(type='QualityTargets')], or use "
            "loss_cls.type='FocalLoss'"
        )
    return labels, target.quality.flatten()


def masked_sum(
    loss: nn.Module, pred: Tensor, target: Tensor, avg_factor: Tensor
) -> Tensor:
    """A box loss of mmdet's over rows that all count: (P, 4), (P, 4), a scalar."""
    if sums_over_anchors(loss):
        return loss(pred, target, avg_factor=avg_factor)  # weights would sync
    return loss(pred, target, torch.ones_like(target), avg_factor=avg_factor)
