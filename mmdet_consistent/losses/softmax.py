"""Softmax cross-entropy of one set of logits under several label sets at once."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.device import is_on_cpu
from .blocks import CPU_BLOCK, GPU_BLOCK, row_blocks


def softmax_losses(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor]:
    """Cross-entropy of each row under each of K label sets, by one log-sum-exp.

    The logits come in parts, such as a detector's levels, with the classes in the
    middle, so that a feature map need not be rearranged.

    Args:
        logits: Parts of shape (B, C, P), of any floating dtype; computed in
            float32 at least.
        labels: For each part, (K, B, P) long, 0 to C - 1.

    Returns:
        For each part, (K, B, P), float32 (float64 where the logits are): not
        weighted, not reduced. The gradient reaches the logits alone.
    """
    return [_SoftmaxLosses.apply(x, y) for x, y in zip(logits, labels)]


class _SoftmaxLosses(torch.autograd.Function):
    """K sets share the sum over classes, forward, and the probabilities, backward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_sum = torch.empty(
            (len(logits), logits.shape[2]), dtype=dtype, device=logits.device
        )
        block = CPU_BLOCK if is_on_cpu(logits) else GPU_BLOCK
        for part in row_blocks(logits, block):
            x = logits[part[0], :, part[1]].to(dtype)
            torch.logsumexp(x, dim=1, out=log_sum[part])
        ctx.save_for_backward(logits, labels, log_sum)
        return log_sum - logits.gather(1, labels.movedim(0, 1)).movedim(1, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, labels, log_sum = ctx.saved_tensors
        row_grad = grad.sum(dim=0)
        if is_on_cpu(logits):
            # Mining leaves most rows without a gradient.
            row, place = torch.where((grad != 0).any(dim=0))
            grad_logits = torch.zeros_like(
                logits, memory_format=torch.contiguous_format
            )
            x = logits[row, :, place].to(grad.dtype)
            x = (x - log_sum[row, place, None]).exp_() * row_grad[row, place, None]
            x.scatter_add_(1, labels[:, row, place].T, -grad[:, row, place].T)
            grad_logits[row, :, place] = x.to(logits.dtype)
            return grad_logits, None
        x = (logits.to(grad.dtype) - log_sum[:, None]).exp_().mul_(row_grad[:, None])
        x.scatter_add_(1, labels.movedim(0, 1), -grad.movedim(0, 1))
        return x.to(logits.dtype), None


def mined_losses(
    losses: Tensor, positive: Tensor, negative: Tensor, neg_pos_ratio: float
) -> Tensor:
    """Positives, and each image's hardest negatives: SSD's hard-negative mining.

    Args:
        losses: Shape (K, N, A), each label set's loss of N images' A anchors.
        positive: Shape (K, N, A), bool.
        negative: Shape (K, N, A), bool; those that may be mined.
        neg_pos_ratio: Negatives kept for each positive of the same image and set.

    Returns:
        Sum over the anchors kept, shape (K,). The choice itself has no gradient.
    """
    with torch.no_grad():
        count = (neg_pos_ratio * positive.sum(dim=-1, keepdim=True)).long()
        most: Optional[int] = losses.shape[-1]
        if is_on_cpu(losses):
            most = min(most, int(count.max()))
        hardness = torch.where(negative, losses, float('-inf'))
        order = hardness.topk(most, dim=-1).indices
        rank_kept = torch.arange(most, device=losses.device) < count
        kept = torch.zeros_like(positive).scatter_(-1, order, rank_kept)
        kept = (kept & negative) | positive
    return torch.where(kept, losses, 0).sum(dim=(1, 2))
