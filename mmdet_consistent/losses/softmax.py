"""Softmax cross-entropy of one set of logits under several label sets at once."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.device import may_select_rows
from .blocks import block_size, row_blocks


def softmax_losses(
    logits: Sequence[Tensor],
    labels: Sequence[Tensor],
    select_rows: Optional[bool] = None,
) -> list[Tensor]:
    """Compute the cross-entropy of each row under K label sets, by one log-sum-exp.

    The logits come in parts, such as a detector's levels, with the classes in the
    middle, so that a feature map need not be rearranged.

    Args:
        logits: Parts of shape (B, C, P), any floating dtype; computed in float32 at
            least.
        labels: For each part, (K, B, P) long, 0 to C - 1.
        select_rows: Whether the backward pass may select the rows that have a gradient.
            Default: where the host need not wait for their number.

    Returns:
        For each part, (K, B, P), float32 (float64 if the logits are), neither weighted
        nor reduced. The gradient reaches only the logits.
    """
    return [
        _SoftmaxLosses.apply(x, y, may_select_rows(x, select_rows))
        for x, y in zip(logits, labels)
    ]


class _SoftmaxLosses(torch.autograd.Function):
    """Shares the sum over classes, and backward the probabilities, among all sets."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, select_rows: bool) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_sum = torch.empty(
            (len(logits), logits.shape[2]), dtype=dtype, device=logits.device
        )
        for part in row_blocks(logits, block_size(logits)):
            x = logits[part[0], :, part[1]].to(dtype)
            torch.logsumexp(x, dim=1, out=log_sum[part])
        ctx.save_for_backward(logits, labels, log_sum)
        ctx.select_rows = select_rows
        return log_sum - logits.gather(1, labels.movedim(0, 1)).movedim(1, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, log_sum = ctx.saved_tensors
        row_grad = grad.sum(dim=0)
        if ctx.select_rows:
            # Mining leaves most rows without a gradient.
            row, place = torch.where((grad != 0).any(dim=0))
            grad_logits = torch.zeros_like(
                logits, memory_format=torch.contiguous_format
            )
            x = logits[row, :, place].to(grad.dtype)
            x = (x - log_sum[row, place, None]).exp_() * row_grad[row, place, None]
            x.scatter_add_(1, labels[:, row, place].T, -grad[:, row, place].T)
            grad_logits[row, :, place] = x.to(logits.dtype)
            return grad_logits, None, None
        x = (logits.to(grad.dtype) - log_sum[:, None]).exp_().mul_(row_grad[:, None])
        x.scatter_add_(1, labels.movedim(0, 1), -grad.movedim(0, 1))
        return x.to(logits.dtype), None, None


def mined_losses(
    losses: Tensor,
    positive: Tensor,
    negative: Tensor,
    neg_pos_ratio: float,
    select_rows: Optional[bool] = None,
) -> Tensor:
    """Sum the positives and each image's hardest negatives, as SSD mines them.

    Args:
        losses: Loss of N images' A anchors under each label set, (K, N, A) float.
        positive: (K, N, A) bool.
        negative: Anchors that may be mined, (K, N, A) bool.
        neg_pos_ratio: Negatives kept per positive of the same image and set.
        select_rows: Whether the number of negatives may be read on the host. Default:
            where it need not wait for it.

    Returns:
        Sum over the anchors kept, (K,). The choice itself has no gradient.
    """
    with torch.no_grad():
        count = (neg_pos_ratio * positive.sum(dim=-1, keepdim=True)).long()
        most: int = losses.shape[-1]
        if may_select_rows(losses, select_rows):
            most = min(most, int(count.max()))
        hardness = torch.where(negative, losses, float('-inf'))
        order = hardness.topk(most, dim=-1).indices
        rank_kept = torch.arange(most, device=losses.device) < count
        kept = torch.zeros_like(positive).scatter_(-1, order, rank_kept)
        kept = (kept & negative) | positive
    return torch.where(kept, losses, 0).sum(dim=(1, 2))
