"""Focal loss of one set of logits under several label sets at once."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.device import is_on_cpu
from .blocks import CPU_BLOCK, GPU_BLOCK, row_blocks

# An infinite logit counts as this much, so that loss and gradient stay finite.
LARGEST_LOGIT = 1e6


def focal_losses(
    logits: Sequence[Tensor],
    labels: Sequence[Tensor],
    weights: Sequence[Tensor],
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Tensor:
    """Sum of the sigmoid focal loss under each of K label sets.

    Nearly every entry is background under every label set. So the background
    terms f⁻ are summed once for all sets, but for the few cells that are a label of
    some set; these are added for each set by themselves, as f⁺ or f⁻. That is exact
    and takes one pass over the logits, whatever K is.

    The logits come in parts, such as a detector's levels, with the classes in the
    middle, so that a feature map need not be rearranged.

    Args:
        logits: Parts of shape (B, C, P), of any floating dtype. Terms are computed
            in float32 at least and added up in float64.
        labels: For each part, (K, B, P) long, 0 to C; C is background.
        weights: For each part, (K, B, P); 0 where a row is ignored.
        gamma: Focusing parameter.
        alpha: Weight of a positive term; 1 - alpha is that of background.

    Returns:
        The sums, shape (K,), float32 (float64 where the logits are), to be
        divided by a normaliser. The gradient reaches the logits alone.
    """
    return _FocalLosses.apply(gamma, alpha, len(logits), *logits, *labels, *weights)


class _FocalLosses(torch.autograd.Function):
    """Keeps the background's slope, which becomes the gradient."""

    @staticmethod
    def forward(
        ctx: Any, gamma: float, alpha: float, num_parts: int, *tensors: Tensor
    ) -> Tensor:
        ctx.gamma, ctx.alpha = gamma, alpha
        ctx.num_parts = num_parts
        slopes, losses = [], 0
        for part, (logits, labels, weights) in enumerate(_parts(tensors)):
            row_sums, slope = _background(
                logits, labels, gamma, alpha, ctx.needs_input_grad[3 + part]
            )
            slopes.append(slope)
            losses = losses + _wide_sum(weights * row_sums, (1, 2))

            cells = _LabelCells(logits, labels)
            weights = weights[:, cells.row, cells.place]
            background, _ = _terms(cells.logits, gamma, 1 - alpha)
            positive, _ = _terms(-cells.logits, gamma, alpha)
            terms = torch.where(cells.is_label, positive, background)
            losses = losses + _wide_sum(terms * weights * cells.is_first, 1)
        ctx.save_for_backward(*tensors)
        ctx.slopes = slopes
        return losses.to(torch.promote_types(tensors[0].dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        grads = []
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
            # Sets with the same label write the same value.
            cells = _LabelCells(logits, labels)
            as_positive = weights[:, cells.row, cells.place] * cells.is_label
            as_positive = as_positive.sum(dim=0)
            as_background = row_weights[cells.row, cells.place] - as_positive
            _, background = _terms(cells.logits, ctx.gamma, 1 - ctx.alpha)
            _, positive = _terms(-cells.logits, ctx.gamma, ctx.alpha)
            value = as_background * background - as_positive * positive
            grad_logits[cells.row, cells.column, cells.place] = value.to(logits.dtype)
            grads.append(grad_logits)
        return (None, None, None, *grads, *[None] * (2 * ctx.num_parts))


class _LabelCells:
    """The E cells that are a label of some set.

    On a GPU there is one for every set and row, background's as well, with a
    column of no meaning and equal to no label: choosing some would make the host
    wait for the device.

    Attributes:
        row, column, place: Indices into (B, C, P), (E,) each.
        logits: There, (E,), at least float32, cut.
        is_label: Whether the cell is the label of each set, (K, E).
        is_first: Whether no earlier set has the same label there, (E,).
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        num_classes = logits.shape[1]
        if is_on_cpu(logits):
            own_set, self.row, self.place = torch.where(labels < num_classes)
            label = labels[own_set, self.row, self.place]
        else:
            shape = labels.shape
            own_set, self.row, self.place = (
                index.expand(shape).flatten()
                for index in torch.meshgrid(
                    *(torch.arange(n, device=labels.device) for n in shape),
                    indexing='ij',
                )
            )
            label = labels.flatten()
        self.column = label.clamp(max=num_classes - 1)
        self.logits = _cut(_wide_enough(logits[self.row, self.column, self.place]))
        there = labels[:, self.row, self.place]
        self.is_label = there == self.column
        sets = torch.arange(len(labels), device=labels.device)[:, None]
        earlier = (there == label) & (sets < own_set)
        self.is_first = ~earlier.any(dim=0) & (label < num_classes)


def _parts(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Logits, labels and weights of each part."""
    count = len(tensors) // 3
    return zip(tensors[:count], tensors[count : 2 * count], tensors[2 * count :])


def _terms(
    x: Tensor, gamma: float, scale: float, slope: Optional[Tensor] = None
) -> tuple[Tensor, Tensor]:
    """Value and slope of scale · σ(x)^γ · log(1 + eˣ): background's term.

    A positive's term at logit x is that of -x, with the opposite slope. ``slope``
    is where to put the latter.
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
    """Background's terms, a block at a time, without the cells that are a label.

    Returns:
        Sum of each row, (B, P), and, if asked for, the slope, (B, C, P), 0 in
        the cells left out.
    """
    rows, classes, places = logits.shape
    dtype = torch.promote_types(logits.dtype, torch.float32)
    row_sums = torch.zeros((rows, places), dtype=dtype, device=logits.device)
    slope = None
    if keep_slope:
        slope = torch.empty_like(logits, memory_format=torch.contiguous_format)
    block = CPU_BLOCK if is_on_cpu(logits) else GPU_BLOCK
    for part in row_blocks(logits, block):
        x = logits[part[0], :, part[1]]
        cut = x.new_empty((len(x), classes + 1, x.shape[2]), dtype=dtype)
        torch.clamp(x.to(dtype), max=LARGEST_LOGIT, out=cut[:, :classes])
        # At this logit, term and slope are 0; background marks a row to spare.
        block_labels = labels[:, part[0], part[1]].movedim(0, 1)
        cut.scatter_(1, block_labels, -LARGEST_LOGIT)
        out = None if slope is None else slope[part[0], :, part[1]]
        value, _ = _terms(cut[:, :classes], gamma, 1 - alpha, out)
        torch.sum(value, dim=1, out=row_sums[part])
    return row_sums, slope


def _wide_sum(x: Tensor, dim: Any) -> Tensor:
    """A sum in float64, where the device has it."""
    wide = torch.float32 if x.device.type == 'mps' else torch.float64
    return x.sum(dim=dim, dtype=wide)


def _wide_enough(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cut(x: Tensor) -> Tensor:
    """Infinite logits cut; a NaN stays one, to be seen in the loss."""
    return x.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
