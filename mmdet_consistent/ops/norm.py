"""Batch normalisation in steps, between which mmcv's MMSyncBN exchanges statistics."""

from typing import Union

from torch import Tensor


def _per_channel(values: Tensor) -> Tensor:
    """(C,) values as (C, 1), to meet (B, C, S)."""
    return values[:, None]


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Compute the mean of each channel of (B, C, S) into (C,)."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Compute the mean squared distance of each channel from ``mean`` into (C,)."""
    var.copy_((input.float() - _per_channel(mean)).square().mean((0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: Union[float, Tensor],
    group_size: int,
) -> None:
    """Normalise, scale, and update the running statistics.

    Args:
        input: (B, C, S).
        mean: (C,) mean of the whole group of processes.
        var: (C,) biased variance of the whole group.
        weight: (C,) scales.
        bias: (C,) shifts.
        running_mean: (C,); is updated.
        running_var: (C,); is updated with the unbiased variance.
        norm: (B, C, S); receives the normalised input.
        std: (C,); receives the standard deviations.
        output: (B, C, S); receives the result.
        eps: Is added to the variance.
        momentum: Share of the new statistics.
        group_size: Number of processes.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - _per_channel(mean)) / _per_channel(std))
    output.copy_(norm * _per_channel(weight) + _per_channel(bias))
    count = input.numel() // input.shape[1] * group_size
    unbiased = var * count / (count - 1) if count > 1 else var
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * unbiased + (1 - momentum) * running_var)


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Compute the derivatives by scales and shifts from those by the result."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Compute the derivatives by the input from those by result, scales and shifts."""
    count = grad_output.numel() // grad_output.shape[1]
    common = _per_channel(grad_weight) * norm + _per_channel(grad_bias)
    grads = grad_output.float() - common / count
    grad_input.copy_(_per_channel(weight) * grads / _per_channel(std))
