"""Focal loss of sigmoid and softmax scores, forward and backward.

mmdet calls the compiled loss on a GPU; on a CPU it has a version of its own.
"""

import torch
from torch import Tensor

# log(0) is cut off here, as in mmcv.
SMALLEST = torch.finfo(torch.float32).tiny


def _at_least_float32(input: Tensor) -> Tensor:
    return input.to(torch.promote_types(input.dtype, torch.float32))


def _is_target(input: Tensor, target: Tensor) -> Tensor:
    """(N, C) bool: whether the class is the row's label."""
    classes = torch.arange(input.shape[1], device=input.device)
    return target[:, None] == classes


def _weight_rows(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Multiply each row by its label's weight. 1 where the label is no class."""
    if weight.numel() == 0:
        return values
    is_class = (target >= 0) & (target < len(weight))
    factor = weight[target.clamp(0, len(weight) - 1)].where(
        is_class, weight.new_ones(())
    )
    return values * factor.view(-1, *[1] * (values.dim() - 1))


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Compute the loss of each score.

    Args:
        input: (N, C) logits.
        target: (N,) int64 labels; C is background.
        weight: (C,) or empty.
        output: (N, C); receives the losses.
        gamma: Exponent of the focusing factor.
        alpha: Weight of the target class; the others have ``1 - alpha``.
    """
    p = _at_least_float32(input).sigmoid()
    log_p, log_q = p.clamp(min=SMALLEST).log(), (1 - p).clamp(min=SMALLEST).log()
    loss = torch.where(
        _is_target(input, target),
        -alpha * (1 - p) ** gamma * log_p,
        -(1 - alpha) * p**gamma * log_q,
    )
    output.copy_(_weight_rows(loss, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Compute each loss's derivative by its logit.

    Args:
        input: As in :func:`sigmoid_focal_loss_forward`, like all the others.
        target: (N,) int64.
        weight: (C,) or empty.
        grad_input: (N, C); receives the derivatives.
        gamma: Exponent of the focusing factor.
        alpha: Weight of the target class.
    """
    p = _at_least_float32(input).sigmoid()
    q = 1 - p
    log_p, log_q = p.clamp(min=SMALLEST).log(), q.clamp(min=SMALLEST).log()
    grad = torch.where(
        _is_target(input, target),
        -alpha * q**gamma * (q - gamma * p * log_p),
        -(1 - alpha) * p**gamma * (gamma * q * log_q - p),
    )
    grad_input.copy_(_weight_rows(grad, target, weight))


def softmax_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Compute the loss of each row.

    Args:
        input: (N, C) softmax scores.
        target: (N,) int64 labels; rows with a negative label have no loss.
        weight: (C,) or empty.
        output: (N,); receives the losses.
        gamma: Exponent of the focusing factor.
        alpha: Factor of all losses.
    """
    p = _at_least_float32(input).gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=SMALLEST).log()
    loss = loss.where(target >= 0, loss.new_zeros(()))
    output.copy_(_weight_rows(loss, target, weight))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Compute each loss's derivative by the logits of its row.

    Args:
        input: As in :func:`softmax_focal_loss_forward`, like all the others.
        target: (N,) int64.
        weight: (C,) or empty.
        buff: (N,); receives the factor of each row.
        grad_input: (N, C); receives the derivatives.
        gamma: Exponent of the focusing factor.
        alpha: Factor of all losses.
    """
    scores = _at_least_float32(input)
    p = scores.gather(1, target.clamp(min=0)[:, None])[:, 0]
    log_p = p.clamp(min=SMALLEST).log()
    q = 1 - p
    factor = alpha * (-(q**gamma) + gamma * q ** (gamma - 1) * p * log_p)
    factor = factor.where(target >= 0, factor.new_zeros(()))
    factor = _weight_rows(factor, target, weight)
    buff.copy_(factor)
    grad_input.copy_(factor[:, None] * (_is_target(input, target).to(scores) - scores))
