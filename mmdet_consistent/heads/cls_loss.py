"""Classification loss of one output under the label sets of several stages."""

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from mmdet.models import losses as mmdet_losses
from torch import Tensor

from ..losses import focal_losses, mined_softmax_losses
from ..losses.layout import class_rows, flatten_levels, split_levels
from .targets import StageTargets


def is_plain_sum(loss: Any) -> bool:
    """Return whether a loss is mmdet's (quality) focal loss, summed and normalised."""
    kinds = (mmdet_losses.FocalLoss, mmdet_losses.QualityFocalLoss)
    plain = type(loss) in kinds and loss.use_sigmoid and not loss.activated
    return plain and loss.reduction == 'mean'


def label_set_losses(
    losses: Sequence[Any],
    levels: list[Tensor],
    num_channels: int,
    targets: Sequence[StageTargets],
    select_rows: Optional[bool] = None,
) -> list[Tensor]:
    """Compute a sigmoid loss under several label sets.

    The plain focal loss takes one pass over the logits for all label sets. Any other
    loss takes one pass per label set; the quality focal loss runs in float32.

    Args:
        losses: Loss module of each label set.
        levels: Logits of each level, (N, A·C, H, W), any floating dtype.
        num_channels: C.
        targets: Targets of each label set.
        select_rows: See :func:`focal_losses`.

    Returns:
        One scalar per label set, divided by its ``cls_avg_factor``.

    Raises:
        ValueError: If the loss needs the quality of boxes and a target has none.
    """
    if not targets:
        return []
    is_focal = type(losses[0]) is mmdet_losses.FocalLoss
    if not (is_focal and is_plain_sum(losses[0])):
        flat = flatten_levels(levels, num_channels).flatten(0, 1)
        if isinstance(losses[0], mmdet_losses.QualityFocalLoss):
            flat = flat.float()
        return [
            loss(
                flat,
                _loss_target(loss, target),
                target.label_weights.flatten(),
                avg_factor=target.cls_avg_factor,
            )
            for loss, target in zip(losses, targets)
        ]
    sums = focal_losses(
        [class_rows(scores, num_channels) for scores in levels],
        split_levels(_stack(targets, 'labels'), levels, num_channels),
        split_levels(_stack(targets, 'label_weights'), levels, num_channels),
        losses[0].gamma,
        losses[0].alpha,
        select_rows,
    )
    eps = torch.finfo(torch.float32).eps  # as in mmdet's weight_reduce_loss
    return [
        loss.loss_weight * value / (target.cls_avg_factor + eps)
        for loss, value, target in zip(losses, sums, targets)
    ]


def mined_label_set_losses(
    head: Any, levels: list[Tensor], targets: Sequence[StageTargets]
) -> list[Tensor]:
    """Compute SSD's softmax loss under several label sets.

    Hard negatives are mined per label set, by the loss under that set's labels.

    Args:
        head: The consistent head, for its number of classes and ``train_cfg``.
        levels: Logits of each level, (N, A·(C + 1), H, W), background last.
        targets: Targets of each label set.

    Returns:
        One scalar per label set, divided by its ``cls_avg_factor``.
    """
    if not targets:
        return []
    sums = mined_softmax_losses(
        levels,
        _stack(targets, 'labels'),
        _stack(targets, 'label_weights'),
        head.num_classes,
        head.train_cfg['neg_pos_ratio'],
        head.select_rows,
    )
    return [value / target.cls_avg_factor for value, target in zip(sums, targets)]


def _stack(targets: Sequence[StageTargets], field: str) -> Tensor:
    """Stack one field of several targets: (K, N, A)."""
    return torch.stack([getattr(target, field) for target in targets])


def _loss_target(
    loss: Any, target: StageTargets
) -> Union[Tensor, tuple[Tensor, Tensor]]:
    """Return the labels (N·A,), paired with the quality if mmdet's loss takes it."""
    labels = target.labels.flatten()
    if not isinstance(loss, mmdet_losses.QualityFocalLoss):
        return labels
    if target.quality is None:
        raise ValueError(
            "loss_cls.type='QualityFocalLoss' needs the IoU of each positive's box "
            "beside its label: add additions=[dict(type='QualityTargets')], or use "
            "loss_cls.type='FocalLoss'"
        )
    return labels, target.quality.flatten()
