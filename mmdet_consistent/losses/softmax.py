"""Softmax loss of one set of logits under several label sets, mined as SSD does."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.device import may_select_rows
from .layout import class_rows, is_channels_last, mmdet_order, split_levels


def mined_softmax_losses(
    levels: Sequence[Tensor],
    labels: Tensor,
    weights: Tensor,
    num_classes: int,
    neg_pos_ratio: float,
    select_rows: Optional[bool] = None,
) -> Tensor:
    """Sum the cross-entropy of the positives and hardest negatives of K label sets.

    Negatives are mined per image and label set. All sets share the log-probabilities,
    and the backward pass visits only the rows that some set kept.

    Args:
        levels: Logits of each level, (N, A·(C + 1), H, W), background last; any
            floating dtype, computed in float32 at least.
        labels: (K, N, ΣHWA) long, 0 to C, in mmdet's order of anchors.
        weights: (K, N, ΣHWA) float; 0 where an anchor is ignored.
        num_classes: C, the label of background.
        neg_pos_ratio: Negatives kept per positive of the same image and set.
        select_rows: Whether rows may be selected by their values. Default: where the
            host need not wait for their number.

    Returns:
        The sums, (K,), float32 (float64 if the logits are), not yet normalised. The
        gradient reaches only the logits; the choice of negatives has none.
    """
    select = may_select_rows(levels[0], select_rows)
    return _MinedSoftmaxLosses.apply(
        num_classes, neg_pos_ratio, select, labels, weights, *levels
    )


class _MinedSoftmaxLosses(torch.autograd.Function):
    """Keeps the log-probabilities, from which the gradient follows."""

    @staticmethod
    def forward(
        ctx: Any,
        num_classes: int,
        neg_pos_ratio: float,
        select: bool,
        labels: Tensor,
        weights: Tensor,
        *levels: Tensor,
    ) -> Tensor:
        channels = num_classes + 1
        dtype = torch.promote_types(levels[0].dtype, torch.float32)
        level_labels = split_levels(labels, levels, channels)
        log_probs = [
            F.log_softmax(class_rows(x, channels), dim=1, dtype=dtype) for x in levels
        ]
        rows = [
            mmdet_order(p.gather(1, y.movedim(0, 1)).movedim(1, 0), x)
            for p, y, x in zip(log_probs, level_labels, levels)
        ]
        losses = torch.cat(rows, dim=2).neg_().mul_(weights)
        positive, negative = labels < num_classes, labels == num_classes
        kept = mine_negatives(losses, positive, negative, neg_pos_ratio, select)
        kept |= positive
        ctx.save_for_backward(torch.where(kept, weights, 0), *level_labels, *log_probs)
        ctx.select = select
        # The backward pass needs the layout of the logits, not their values.
        ctx.layouts = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device='meta')
            for x in levels
        ]
        return torch.where(kept, losses, 0).sum(dim=(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        kept_weights, *saved = ctx.saved_tensors
        num_levels = len(ctx.layouts)
        level_labels, log_probs = saved[:num_levels], saved[num_levels:]
        channels = log_probs[0].shape[1]
        kept_weights = kept_weights.to(grad.dtype) * grad[:, None, None]
        grads = []
        for layout, labels, x, weights in zip(
            ctx.layouts,
            level_labels,
            log_probs,
            split_levels(kept_weights, ctx.layouts, channels),
        ):
            format = (
                torch.channels_last
                if is_channels_last(layout)
                else torch.contiguous_format
            )
            grad_level = torch.empty(
                layout.shape, dtype=layout.dtype, device=x.device, memory_format=format
            ).zero_()  # torch 2.0's zeros_like leaves another device's memory as it is
            rows = class_rows(grad_level, channels)
            if ctx.select:  # mining leaves most rows without a gradient
                row, place = torch.where((weights != 0).any(dim=0))
                weights = weights[:, row, place]
                value = x[row, :, place].exp_().mul_(weights.sum(dim=0)[:, None])
                value.scatter_add_(1, labels[:, row, place].T, -weights.T)
                rows[row, :, place] = value.to(rows.dtype)
            else:
                value = x.exp().mul_(weights.sum(dim=0)[:, None])
                value.scatter_add_(1, labels.movedim(0, 1), -weights.movedim(0, 1))
                rows.copy_(value)
            grads.append(grad_level)
        return (None, None, None, None, None, *grads)


def mine_negatives(
    losses: Tensor, positive: Tensor, negative: Tensor, ratio: float, select: bool
) -> Tensor:
    """Choose each image's hardest negatives under each label set.

    Args:
        losses: Loss of N images' A anchors under each label set, (K, N, A) float.
        positive: (K, N, A) bool.
        negative: Anchors that may be mined, (K, N, A) bool.
        ratio: Negatives kept per positive of the same image and set.
        select: Whether the number of negatives may be read on the host.

    Returns:
        (K, N, A) bool.
    """
    count = (ratio * positive.sum(dim=-1, keepdim=True)).long()
    most: int = losses.shape[-1]
    if select:
        most = min(most, int(count.max()))
    hardness = torch.where(negative, losses, float('-inf'))
    order = hardness.topk(most, dim=-1).indices
    rank_kept = torch.arange(most, device=losses.device) < count
    return torch.zeros_like(positive).scatter_(-1, order, rank_kept) & negative
