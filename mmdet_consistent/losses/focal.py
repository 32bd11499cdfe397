"""Focal loss of one set of logits under several label sets at once."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.device import may_select_rows, may_use_kernels
from .blocks import block_size, row_blocks

# An infinite logit counts as this much, so that loss and gradient stay finite.
LARGEST_LOGIT = 1e6


def focal_losses(
    logits: Sequence[Tensor],
    labels: Sequence[Tensor],
    weights: Sequence[Tensor],
    gamma: float = 2.0,
    alpha: float = 0.25,
    select_rows: Optional[bool] = None,
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
        select_rows: Whether the rows with a label may be selected. Default: where the
            host need not wait for their number.

    Returns:
        The sums, (K,), float32 (float64 if the logits are), not yet normalised. The
        gradient reaches only the logits.
    """
    if may_use_kernels(logits[0], select_rows):
        from .focal_kernel import focal_sums

        return focal_sums(logits, labels, weights, gamma, alpha)
    select = may_select_rows(logits[0], select_rows)
    tensors = *logits, *labels, *weights
    return _FocalLosses.apply(gamma, alpha, select, len(logits), *tensors)


class _FocalLosses(torch.autograd.Function):
    """Keeps the slope of the background terms, which becomes the gradient.

    Slopes of float16 logits would be rounded to 0 before they meet the loss scale. They
    are computed anew instead, and rounded when they are multiplied.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gamma: float,
        alpha: float,
        select: bool,
        num_parts: int,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.gamma, ctx.alpha = gamma, alpha
        ctx.select, ctx.num_parts = select, num_parts
        slopes: list[Optional[Tensor]] = []
        ctx.cells = [] if select else None  # of all rows, they would be large
        losses: Any = 0.0
        for part, (logits, labels, weights) in enumerate(_parts(tensors)):
            slope = None
            if ctx.needs_input_grad[4 + part] and logits.dtype != torch.float16:
                slope = _empty_like(logits)
            slopes.append(slope)
            row_sums = _background(logits, labels, gamma, alpha, slope)
            losses = losses + sum_float64(weights * row_sums, (1, 2))

            cells = _label_cells(logits, labels, weights, select)
            background, _ = _terms(cells.logits, gamma, 1 - alpha)
            positive, _ = _terms(-cells.logits, gamma, alpha)
            terms = torch.where(cells.is_label, positive, background) * cells.is_first
            losses = losses + sum_float64((terms * cells.weights).flatten(1), 1)
            if select:
                ctx.cells.append(cells)
        ctx.save_for_backward(*tensors)
        ctx.slopes = slopes
        return losses.to(torch.promote_types(tensors[0].dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        grads: list[Optional[Tensor]] = []
        for part, (logits, labels, weights) in enumerate(_parts(ctx.saved_tensors)):
            if not ctx.needs_input_grad[4 + part]:
                grads.append(None)
                continue
            row_weights = (weights.to(grad.dtype) * grad[:, None, None]).sum(dim=0)
            grad_logits, ctx.slopes[part] = ctx.slopes[part], None
            if grad_logits is None:  # float16, or a second pass through the same graph
                grad_logits = _empty_like(logits)
                _background(
                    logits, labels, ctx.gamma, ctx.alpha, grad_logits, row_weights
                )
            else:  # in place: another array of this size would be the largest of all
                grad_logits.mul_(row_weights[:, None].to(grad_logits.dtype))

            # A label's cell is positive for some sets and background for others.
            if ctx.select:
                cells = ctx.cells[part]
            else:
                cells = _label_cells(logits, labels, weights, False)
            scale = grad.view(-1, *[1] * (cells.weights.dim() - 1))
            cell_weights = cells.weights.to(grad.dtype) * scale
            as_positive = (cell_weights * cells.is_label).sum(dim=0)
            as_background = cell_weights.sum(dim=0) - as_positive
            _, background = _terms(cells.logits, ctx.gamma, 1 - ctx.alpha)
            _, positive = _terms(-cells.logits, ctx.gamma, ctx.alpha)
            value = as_background * background - as_positive * positive
            # Sets with the same label write the same value.
            cells.write(grad_logits, value.to(logits.dtype))
            grads.append(grad_logits)
        return (None, None, None, None, *grads, *[None] * (2 * ctx.num_parts))


def _empty_like(logits: Tensor) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _parts(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the logits, labels and weights of each part."""
    count = len(tensors) // 3
    return zip(tensors[:count], tensors[count : 2 * count], tensors[2 * count :])


class _LabelCells(NamedTuple):
    """The cells that L = K label sets label, in rows of shape R.

    Attributes:
        rows: Index of the rows into B and P; ``None`` for all rows.
        column: Class of each set's cell, (L, *R). A background row has no such cell and
            gets the last class.
        logits: (L, *R), float32 at least, clamped.
        weights: (K, 1, *R).
        is_label: Whether a cell is the label of each set, (K, L, *R).
        is_first: Whether a cell is a label that no earlier set has, (L, *R).
    """

    rows: Optional[tuple[Tensor, Tensor]]
    column: Tensor
    logits: Tensor
    weights: Tensor
    is_label: Tensor
    is_first: Tensor

    def write(self, target: Tensor, values: Tensor) -> None:
        """Write values (L, *R) into their cells of ``target``, (B, C, P)."""
        if self.rows is None:
            target.scatter_(1, self.column.movedim(0, 1), values.movedim(0, 1))
        else:
            target[self.rows[0], self.column, self.rows[1]] = values


def _label_cells(
    logits: Tensor, labels: Tensor, weights: Tensor, select: bool
) -> _LabelCells:
    """Look up the labelled cells, in the rows that have one or in all rows."""
    classes = logits.shape[1]
    rows: Any = None
    if select:
        rows = row, place = torch.where((labels < classes).any(dim=0))
        labels, weights = labels[:, row, place], weights[:, row, place]
        column = labels.clamp(max=classes - 1)
        x = logits[row, column, place]
    else:
        column = labels.clamp(max=classes - 1)
        x = logits.gather(1, column.movedim(0, 1)).movedim(1, 0)
    is_first = labels < classes
    for index in range(1, len(labels)):
        is_first[index] &= (labels[:index] != labels[index]).all(dim=0)
    x = clamp_logits(x.to(torch.promote_types(x.dtype, torch.float32)))
    is_label = labels[:, None] == column
    return _LabelCells(rows, column, x, weights[:, None], is_label, is_first)


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
    logits: Tensor,
    labels: Tensor,
    gamma: float,
    alpha: float,
    slope: Optional[Tensor] = None,
    row_weights: Optional[Tensor] = None,
) -> Tensor:
    """Sum the background terms block by block, without the labelled cells.

    Args:
        logits: (B, C, P).
        labels: (K, B, P).
        gamma: γ.
        alpha: α.
        slope: Where to write the slope, (B, C, P): 0 in the cells left out.
        row_weights: Factors of the slope, (B, P).

    Returns:
        The sum of each row, (B, P), float32 at least.
    """
    rows, classes, places = logits.shape
    dtype = torch.promote_types(logits.dtype, torch.float32)
    row_sums = torch.zeros((rows, places), dtype=dtype, device=logits.device)
    for part in row_blocks(logits, block_size(logits)):
        x = logits[part[0], :, part[1]]
        clamped = x.new_empty((len(x), classes + 1, x.shape[2]), dtype=dtype)
        torch.clamp(x.to(dtype), max=LARGEST_LOGIT, out=clamped[:, :classes])
        # At this logit, term and slope are 0. Background marks the spare row.
        block_labels = labels[:, part[0], part[1]].movedim(0, 1)
        clamped.scatter_(1, block_labels, -LARGEST_LOGIT)
        out = None if slope is None else slope[part[0], :, part[1]]
        if row_weights is None:
            value, _ = _terms(clamped[:, :classes], gamma, 1 - alpha, out)
        else:
            value, exact = _terms(clamped[:, :classes], gamma, 1 - alpha)
            torch.mul(exact, row_weights[part][:, None], out=out)
        torch.sum(value, dim=1, out=row_sums[part])
    return row_sums


def sum_float64(x: Tensor, dim: Any) -> Tensor:
    """Sum in float64 if the device supports it, else in float32."""
    dtype = torch.float32 if x.device.type == 'mps' else torch.float64
    return x.sum(dim=dim, dtype=dtype)


def clamp_logits(x: Tensor) -> Tensor:
    """Clamp infinite logits. A NaN stays, so that the loss shows it."""
    return x.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
