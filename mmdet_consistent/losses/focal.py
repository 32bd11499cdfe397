"""Focal loss of one set of logits under several label sets at once."""

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.device import is_on_cpu

# Elements looked at together: on a CPU a block's temporaries fit into a core's
# cache, on a GPU they only have to stay small beside the logits.
CPU_BLOCK, GPU_BLOCK = 2**15, 2**24
# An infinite logit counts as this much, so that loss and gradient stay finite.
LARGEST_LOGIT = 1e6


def focal_losses(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Tensor:
    """Sum of the sigmoid focal loss under each of K label sets.

    Nearly every entry is background under every label set. So a row's background
    terms are summed once, S[r] = Σ_c f⁻(x[r, c]), and the loss of a set is
    Σ_r w[r]·S[r], plus f⁺ - f⁻ at the labels of its positives. That is exact, and
    takes one pass over the logits, whatever K is.

    Args:
        logits: x, shape (R, C), of any floating dtype. Terms are computed in
            float32 at least and summed in float64.
        labels: Shape (K, R), long, 0 to C; C is background.
        weights: Shape (K, R); 0 where a row is ignored.
        gamma: Focusing parameter.
        alpha: Weight of a positive term; 1 - alpha is that of background.

    Returns:
        The sums, shape (K,), float32 (float64 where the logits are), to be
        divided by a normaliser. The gradient reaches the logits alone.
    """
    return _FocalLosses.apply(logits, labels, weights, gamma, alpha)


class _FocalLosses(torch.autograd.Function):
    """Keeps the background's slope, (R, C); the labels' few cells are computed anew."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        gamma: float,
        alpha: float,
    ) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        wide = torch.float32 if logits.device.type == 'mps' else torch.float64
        weights = weights.to(dtype)
        row_sums, at_labels, slope = _background(
            logits, labels, dtype, wide, gamma, alpha, ctx.needs_input_grad[0]
        )
        sums = row_sums.repeat(len(labels), 1)
        sets, rows, columns = _label_cells(labels, logits.shape[1])
        positive, _ = _terms(-_cut(logits[rows, columns].to(dtype)), gamma, alpha)
        # The very value that went into the row's sum is taken out of it again.
        change = positive.to(wide) - at_labels[sets, rows].to(wide)
        is_positive = labels[sets, rows] == columns
        sums[sets, rows] += change * is_positive
        losses = (sums * weights).sum(dim=1)

        ctx.save_for_backward(logits, labels, weights, slope)
        ctx.gamma, ctx.alpha = gamma, alpha
        return losses.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        logits, labels, weights, slope = ctx.saved_tensors
        weights = weights * grad[:, None]
        row_weights = weights.sum(dim=0)
        grad_logits = slope * row_weights[:, None].to(slope.dtype)

        # A label's cell is positive for some sets and background for the others.
        # Sets with the same label write the same value.
        _, rows, columns = _label_cells(labels, logits.shape[1])
        as_positive = (weights[:, rows] * (labels[:, rows] == columns)).sum(dim=0)
        as_background = row_weights[rows] - as_positive
        x = _cut(logits[rows, columns].to(grad.dtype))
        _, background = _terms(x, ctx.gamma, 1 - ctx.alpha)
        _, positive = _terms(-x, ctx.gamma, ctx.alpha)
        cells = as_background * background - as_positive * positive
        grad_logits[rows, columns] = cells.to(slope.dtype)
        return grad_logits, None, None, None, None


def _terms(x: Tensor, gamma: float, scale: float) -> tuple[Tensor, Tensor]:
    """Value and slope of scale · σ(x)^γ · log(1 + eˣ): background's term.

    A positive's term at logit x is that of -x, with the opposite slope.
    """
    probability = x.sigmoid()
    softplus = F.softplus(x)
    power = probability * probability if gamma == 2 else probability**gamma
    power *= scale
    value = power * softplus
    # γ·(1 - p)·softplus + p, times the power
    softplus.mul_(1 - probability).mul_(gamma).add_(probability)
    return value, softplus.mul_(power)


def _background(
    logits: Tensor,
    labels: Tensor,
    dtype: torch.dtype,
    wide: torch.dtype,
    gamma: float,
    alpha: float,
    keep_slope: bool,
) -> tuple[Tensor, Tensor, Optional[Tensor]]:
    """Background's term, a block of rows at a time.

    Returns:
        Sum of each row, (R,); the term at each label, (K, R), arbitrary where the
        label is background; its slope, (R, C), if asked for.
    """
    num_rows, num_classes = logits.shape
    row_sums = torch.zeros(num_rows, dtype=wide, device=logits.device)
    at_labels = torch.zeros(labels.shape, dtype=dtype, device=logits.device)
    slope = None
    if keep_slope:
        slope = torch.empty_like(logits, memory_format=torch.contiguous_format)
    step = max(1, (CPU_BLOCK if is_on_cpu(logits) else GPU_BLOCK) // num_classes)
    for start in range(0, num_rows, step):
        part = slice(start, start + step)
        value, block_slope = _terms(_cut(logits[part].to(dtype)), gamma, 1 - alpha)
        torch.sum(value, dim=1, dtype=wide, out=row_sums[part])
        columns = labels[:, part].clamp(max=num_classes - 1)
        at_labels[:, part] = value.gather(1, columns.T).T
        if slope is not None:
            slope[part] = block_slope
    return row_sums, at_labels, slope


def _cut(x: Tensor) -> Tensor:
    """Infinite logits cut; a NaN stays one, to be seen in the loss."""
    return x.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def _label_cells(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Set, row and column, (P,) each, of the labels that aren't background.

    On a GPU these are all K·R pairs, background's with a column of no meaning:
    choosing some would make the host wait for the device.
    """
    if is_on_cpu(labels):
        sets, rows = (labels < num_classes).nonzero(as_tuple=True)
        return sets, rows, labels[sets, rows]
    num_sets, num_rows = labels.shape
    sets = torch.arange(num_sets, device=labels.device).repeat_interleave(num_rows)
    rows = torch.arange(num_rows, device=labels.device).repeat(num_sets)
    return sets, rows, labels.clamp(max=num_classes - 1).flatten()
