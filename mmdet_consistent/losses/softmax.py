"""Softmax cross-entropy of one set of logits under several label sets at once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def softmax_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row under each of K label sets, by one log-softmax.

    Args:
        logits: Shape (R, C), of any floating dtype; computed in float32 at least.
        labels: Shape (K, R), long, 0 to C - 1.

    Returns:
        Shape (K, R), float32 (float64 where the logits are): not weighted, not
        reduced. The gradient reaches the logits alone.
    """
    return _SoftmaxLosses.apply(logits, labels)


class _SoftmaxLosses(torch.autograd.Function):
    """K sets share the dense part of the gradient; the rest is one entry a row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probability = torch.log_softmax(logits, dim=1, dtype=dtype)
        ctx.save_for_backward(log_probability, labels)
        ctx.dtype = logits.dtype
        return -log_probability.gather(1, labels.T).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        log_probability, labels = ctx.saved_tensors
        grad_logits = log_probability.exp().mul_(grad.sum(dim=0)[:, None])
        grad_logits.scatter_add_(1, labels.T, -grad.T)
        return grad_logits.to(ctx.dtype), None


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
        hardness = torch.where(negative, losses, float('-inf'))
        order = hardness.argsort(dim=-1, descending=True, stable=True)
        count = (neg_pos_ratio * positive.sum(dim=-1, keepdim=True)).long()
        rank_kept = torch.arange(losses.shape[-1], device=losses.device) < count
        kept = torch.zeros_like(positive).scatter_(-1, order, rank_kept)
        kept = (kept & negative) | positive
    return torch.where(kept, losses, 0).sum(dim=(1, 2))
