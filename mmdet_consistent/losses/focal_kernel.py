"""Focal loss of one set of logits under several label sets, as Triton kernels.

Forward, a program sums the background terms of some rows over all classes, without the
labelled cells, and adds those cells for each label set. Backward, it computes the terms
anew, so that nothing of the logits' size is kept or copied. All arithmetic is float32;
sums run in a fixed order.
"""

from collections.abc import Sequence
from typing import Any, Optional

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..utils.device import launch

# Rows per program, and classes that it reads at once.
ROWS, CLASSES = 128, 16


def focal_sums(
    logits: Sequence[Tensor],
    labels: Sequence[Tensor],
    weights: Sequence[Tensor],
    gamma: float,
    alpha: float,
) -> Tensor:
    """Sum the focal loss under K label sets. See :func:`focal_losses`."""
    labels = [y.contiguous() for y in labels]
    weights = [w.contiguous() for w in weights]
    return _FocalSums.apply(gamma, alpha, len(logits), *logits, *labels, *weights)


class _FocalSums(torch.autograd.Function):
    """Keeps its inputs alone."""

    @staticmethod
    def forward(
        ctx: Any, gamma: float, alpha: float, num_parts: int, *tensors: Tensor
    ) -> Tensor:
        logits, labels, weights = _split(tensors, num_parts)
        programs = [triton.cdiv(y[0].numel(), ROWS) for y in labels]
        sums = logits[0].new_empty((len(labels[0]), sum(programs)), dtype=torch.float32)
        first = 0
        for x, y, w, count in zip(logits, labels, weights, programs):
            if count:
                launch(
                    _sums_kernel,
                    (count,),
                    *(x, y, w, sums[:, first:], sums.stride(0)),
                    *(y[0].numel(), *x.shape[1:], *x.stride(), alpha),
                    SETS=len(y),
                    GAMMA=float(gamma),
                    ROWS=ROWS,
                    CLASSES=CLASSES,
                )
            first += count
        ctx.save_for_backward(*tensors)
        ctx.gamma, ctx.alpha, ctx.num_parts = gamma, alpha, num_parts
        return sums.sum(dim=1, dtype=torch.float64).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        grads: list[Optional[Tensor]] = []
        parts = zip(*_split(ctx.saved_tensors, ctx.num_parts))
        for part, (x, y, w) in enumerate(parts):
            grad_x = None
            if ctx.needs_input_grad[3 + part]:
                grad_x = torch.empty_like(x)
                count = triton.cdiv(y[0].numel(), ROWS)
                if count:
                    launch(
                        _grad_kernel,
                        (count,),
                        *(x, y, w, grad.contiguous(), grad_x),
                        *(y[0].numel(), *x.shape[1:]),
                        *(*x.stride(), *grad_x.stride(), ctx.alpha),
                        SETS=len(y),
                        GAMMA=float(ctx.gamma),
                        ROWS=ROWS,
                        CLASSES=CLASSES,
                    )
            grads.append(grad_x)
        return (None, None, None, *grads, *[None] * (2 * ctx.num_parts))


def _split(tensors: tuple, num_parts: int) -> tuple[tuple, tuple, tuple]:
    """Return the logits, labels and weights of all parts."""
    return (
        tensors[:num_parts],
        tensors[num_parts : 2 * num_parts],
        tensors[2 * num_parts :],
    )


@triton.jit
def _terms(x, scale, GAMMA: tl.constexpr):
    """Return value and slope of scale · σ(x)^γ · log(1 + eˣ)."""
    e = tl.exp(-tl.abs(x))
    # log(1 + e) = 2·artanh(e / (2 + e)), since the hardware's logarithm loses the
    # digits of a result near 0.
    s = e / (2.0 + e)
    t = s * s
    series = 1.0 / 13.0 + t * (1.0 / 15.0)
    series = 1.0 / 9.0 + t * (1.0 / 11.0 + t * series)
    series = 1.0 + t * (1.0 / 3.0 + t * (1.0 / 5.0 + t * (1.0 / 7.0 + t * series)))
    log1p = 2.0 * s * series
    softplus = tl.maximum(x, 0.0) + log1p
    p = tl.where(x >= 0, 1.0, e) / (1.0 + e)
    q = tl.where(x >= 0, e, 1.0) / (1.0 + e)
    if GAMMA == 2.0:
        power = p * p * scale
    else:
        power = tl.exp(-GAMMA * (tl.maximum(-x, 0.0) + log1p)) * scale
    return power * softplus, power * (GAMMA * q * softplus + p)


@triton.jit
def _clamped(x):
    """Clamp infinite logits as the eager path does. A NaN stays."""
    x = x.to(tl.float32)
    x = tl.where(x > 1e6, 1e6, x)
    return tl.where(x < -1e6, -1e6, x)


@triton.jit
def _sums_kernel(
    logits_ptr,
    labels_ptr,
    weights_ptr,
    out_ptr,
    out_stride,
    rows,
    classes,
    places,
    row_stride,
    class_stride,
    place_stride,
    alpha,
    SETS: tl.constexpr,
    GAMMA: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = r < rows
    row, place = (r // places).to(tl.int64), (r % places).to(tl.int64)
    base = row * row_stride + place * place_stride
    background = tl.zeros((ROWS,), tl.float32)
    for first in range(0, classes, CLASSES):
        c = first + tl.arange(0, CLASSES)
        counts = exists[None, :] & (c < classes)[:, None]
        where = logits_ptr + base[None, :] + c.to(tl.int64)[:, None] * class_stride
        x = _clamped(tl.load(where, mask=counts, other=0.0))
        for k in tl.static_range(SETS):
            y = tl.load(labels_ptr + k * rows + r, mask=exists, other=0)
            counts = counts & (c[:, None] != y[None, :])
        value, _ = _terms(x, 1.0 - alpha, GAMMA)
        background += tl.sum(tl.where(counts, value, 0.0), axis=0)
    for k in tl.static_range(SETS):
        own = tl.load(labels_ptr + k * rows + r, mask=exists, other=0)
        total = background
        for other in tl.static_range(SETS):
            y = tl.load(labels_ptr + other * rows + r, mask=exists, other=0)
            labelled = exists & (y < classes)
            for earlier in tl.static_range(other):
                before = tl.load(labels_ptr + earlier * rows + r, mask=exists, other=0)
                labelled = labelled & (before != y)
            where = logits_ptr + base + y.to(tl.int64) * class_stride
            x = _clamped(tl.load(where, mask=labelled, other=0.0))
            positive, _ = _terms(-x, alpha, GAMMA)
            negative, _ = _terms(x, 1.0 - alpha, GAMMA)
            value = tl.where(own == y, positive, negative)
            total += tl.where(labelled, value, 0.0)
        w = tl.load(weights_ptr + k * rows + r, mask=exists, other=0.0).to(tl.float32)
        total = tl.sum(tl.where(exists, total * w, 0.0), axis=0)
        tl.store(out_ptr + k * out_stride + tl.program_id(0), total)


@triton.jit
def _grad_kernel(
    logits_ptr,
    labels_ptr,
    weights_ptr,
    upstream_ptr,
    grad_ptr,
    rows,
    classes,
    places,
    row_stride,
    class_stride,
    place_stride,
    grad_row_stride,
    grad_class_stride,
    grad_place_stride,
    alpha,
    SETS: tl.constexpr,
    GAMMA: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = r < rows
    row, place = (r // places).to(tl.int64), (r % places).to(tl.int64)
    base = row * row_stride + place * place_stride
    grad_base = row * grad_row_stride + place * grad_place_stride
    for first in range(0, classes, CLASSES):
        c = first + tl.arange(0, CLASSES)
        inside = exists[None, :] & (c < classes)[:, None]
        column = c.to(tl.int64)[:, None]
        where = logits_ptr + base[None, :] + column * class_stride
        x = _clamped(tl.load(where, mask=inside, other=0.0))
        _, negative = _terms(x, 1.0 - alpha, GAMMA)
        _, positive = _terms(-x, alpha, GAMMA)
        grad = tl.zeros((CLASSES, ROWS), tl.float32)
        for k in tl.static_range(SETS):
            y = tl.load(labels_ptr + k * rows + r, mask=exists, other=0)
            w = tl.load(weights_ptr + k * rows + r, mask=exists, other=0.0).to(
                tl.float32
            )
            w = w * tl.load(upstream_ptr + k).to(tl.float32)
            slope = tl.where(c[:, None] == y[None, :], -positive, negative)
            grad += w[None, :] * slope
        where = grad_ptr + grad_base[None, :] + column * grad_class_stride
        tl.store(where, grad.to(grad_ptr.dtype.element_ty), mask=inside)
