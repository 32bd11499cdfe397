"""Focal loss of one set of logits under several label sets at once."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .blocks import block_size, row_blocks

# An infinite logit counts as this much, so that loss and gradient stay finite.
LARGEST_LOGIT = 1e6


def focal_losses(
    logits: Sequence[Tensor],
    labels: Sequence[Tensor],
    weights: Sequence[Tensor],
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Tensor:
    """Sum the sigmoid focal loss under each of K label sets.

    Nearly every entry is background under every label set. Therefore the background
    terms f⁻ are summed once for all sets, except in the few cells that are a label of
    some set. Those cells are added for each set separately, as f⁺ or f⁻. The result is
    exact and takes one pass over the logits, whatever K is.

    The logits come in parts, such as a detector's levels, with the classes in the
    middle, so that a feature map need not be rearranged.

    Args:
        logits: Parts of shape (B, C, P), any floating dtype. Terms are computed in
            float32 at least and summed in float64.
        labels: For each part, (K, B, P) long, 0 to C; C is background.
        weights: For each part, (K, B, P) float; 0 where a row is ignored.
        gamma: Focusing parameter.
        alpha: Weight of a positive term; a background term weighs 1 - alpha.

    Returns:
        The sums, (K,), float32 (float64 if the logits are), not yet normalised. The
        gradient reaches only the logits.
    """
    return _FocalLosses.apply(gamma, alpha, len(logits), *logits, *labels, *weights)


class _FocalLosses(torch.autograd.Function):
    """Keeps the slope of the background terms, which becomes the gradient."""

    @staticmethod
    def forward(
        ctx: Any, gamma: float, alpha: float, num_parts: int, *tensors: Tensor
    ) -> Tensor:
        ctx.gamma, ctx.alpha = gamma, alpha
        ctx.num_parts = num_parts
        slopes: list[Optional[Tensor]] = []
        losses: Union[Tensor, float] = 0.0
        for part, (logits, labels, weights) in enumerate(_parts(tensors)):
            row_sums, slope = _background(
                logits, labels, gamma, alpha, ctx.needs_input_grad[3 + part]
            )
            slopes.append(slope)
            losses = losses + sum_float64(weights * row_sums, (1, 2))

            _, x, is_label = _label_cells(logits, labels)
            background, _ = _terms(x, gamma, 1 - alpha)
            positive, _ = _terms(-x, gamma, alpha)
            terms = torch.where(is_label, positive, background)
            terms = terms * _first_of_equal(labels, logits.shape[1])
            losses = losses + sum_float64(terms * weights[:, None], (1, 2, 3))
        ctx.save_for_backward(*tensors)
        ctx.slopes = slopes
        return losses.to(torch.promote_types(tensors[0].dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        grads: list[Optional[Tensor]] = []
        for part, (logits, labels, weights) in enumerate(_parts(ctx.saved_tensors)):
            if not ctx.needs_input_grad[3 + part]:
                grads.append(None)
                continue
            slope, ctx.slopes[part] = ctx.slopes[part], None
            if slope is None:  # a second backward pass through the same graph
                _, slope = _background(logits, labels, ctx.gamma, ctx.alpha, True)
            weights = weights.to(grad.dtype) * grad[:, None, None]
            row_weights = weights.sum(dim=0)
            # In place: another array of this size would be the largest of all.
            grad_logits = slope.mul_(row_weights[:, None].to(slope.dtype))

            # A label's cell is positive for some sets and background for others.
            column, x, is_label = _label_cells(logits, labels)
            as_positive = (weights[:, None] * is_label).sum(dim=0)
            _, background = _terms(x, ctx.gamma, 1 - ctx.alpha)
            _, positive = _terms(-x, ctx.gamma, ctx.alpha)
            value = (row_weights - as_positive) * background - as_positive * positive
            # Sets with the same label write the same value.
            value, column = value.movedim(0, 1), column.movedim(0, 1)
            grads.append(grad_logits.scatter_(1, column, value.to(logits.dtype)))
        return (None, None, None, *grads, *[None] * (2 * ctx.num_parts))


def _parts(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the logits, labels and weights of each part."""
    count = len(tensors) // 3
    return zip(tensors[:count], tensors[count : 2 * count], tensors[2 * count :])


def _label_cells(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Look up the cell that each set labels in each row.

    A background row has no such cell. It gets the last class, so that nothing has to be
    selected.

    Returns:
        Class of each set's cell, (L, B, P), its logit, (L, B, P), and whether it is the
        label of set K, (K, L, B, P), for L = K sets of cells.
    """
    column = labels.clamp(max=logits.shape[1] - 1)
    x = logits.gather(1, column.movedim(0, 1)).movedim(1, 0)
    x = clamp_logits(x.to(torch.promote_types(x.dtype, torch.float32)))
    return column, x, labels[:, None] == column


def _first_of_equal(labels: Tensor, num_classes: int) -> Tensor:
    """Return which sets' cells count, (K, B, P): no background, no cell twice."""
    counts = labels < num_classes
    for index in range(1, len(labels)):
        counts[index] &= (labels[:index] != labels[index]).all(dim=0)
    return counts


def _terms(
    x: Tensor, gamma: float, scale: float, slope: Optional[Tensor] = None
) -> tuple[Tensor, Tensor]:
    """Return value and slope of a background term, scale · σ(x)^γ · log(1 + eˣ).

    A positive term at logit x is the background term at -x, with the opposite slope.

    Args:
        x: Logits, at least float32.
        gamma: γ.
        scale: Weight of the term.
        slope: Where to write the slope.
    """
    probability = x.sigmoid()
    softplus = F.softplus(x)
    power = probability * probability if gamma == 2 else probability**gamma
    power *= scale
    value = power * softplus
    # γ·(1 - p)·softplus + p, times the power
    softplus.mul_(1 - probability).mul_(gamma).add_(probability)
    return value, torch.mul(softplus, power, out=slope)


def _background(
    logits: Tensor, labels: Tensor, gamma: float, alpha: float, keep_slope: bool
) -> tuple[Tensor, Optional[Tensor]]:
    """Sum the background terms block by block, without the labelled cells.

    Returns:
        The sum of each row, (B, P), and, if asked for, the slope, (B, C, P), 0 in the
        cells left out.
    """
    rows, classes, places = logits.shape
    dtype = torch.promote_types(logits.dtype, torch.float32)
    row_sums = torch.zeros((rows, places), dtype=dtype, device=logits.device)
    slope = None
    if keep_slope:
        slope = torch.empty_like(logits, memory_format=torch.contiguous_format)
    for part in row_blocks(logits, block_size(logits)):
        x = logits[part[0], :, part[1]]
        clamped = x.new_empty((len(x), classes + 1, x.shape[2]), dtype=dtype)
        torch.clamp(x.to(dtype), max=LARGEST_LOGIT, out=clamped[:, :classes])
        # At this logit, term and slope are 0. Background marks the spare row.
        block_labels = labels[:, part[0], part[1]].movedim(0, 1)
        clamped.scatter_(1, block_labels, -LARGEST_LOGIT)
        out = None if slope is None else slope[part[0], :, part[1]]
        value, _ = _terms(clamped[:, :classes], gamma, 1 - alpha, out)
        torch.sum(value, dim=1, out=row_sums[part])
    return row_sums, slope


def sum_float64(x: Tensor, dim: Any) -> Tensor:
    """Sum in float64 if the device supports it, else in float32."""
    dtype = torch.float32 if x.device.type == 'mps' else torch.float64
    return x.sum(dim=dim, dtype=dtype)


def clamp_logits(x: Tensor) -> Tensor:
    """Clamp infinite logits. A NaN stays, so that the loss shows it."""
    return x.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
