"""CARAFE: upsampling in which every output pixel has a kernel of its own."""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor


def _taps(kernel_size: int) -> Iterator[tuple[int, int, int]]:
    """Index, row and column of each tap of a kernel."""
    for tap in range(kernel_size**2):
        yield tap, tap // kernel_size, tap % kernel_size


def _by_group(masks: Tensor, groups: int, scale: int) -> Tensor:
    """(B, G · K², H · s, W · s) kernels as (B, G, 1, K², H, s, W, s)."""
    batch, channels, height = masks.shape[:3]
    return masks.reshape(
        batch, groups, 1, channels // groups, height // scale, scale, -1, scale
    )


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Upsample.

    Args:
        features: (B, C, H, W).
        masks: (B, group_size · K², H · s, W · s), kernels.
        rfeatures: Like ``features``; receives what the backward pass needs of them.
        routput: Not used.
        rmasks: Not used.
        output: (B, C, H · s, W · s); receives the result.
        kernel_size: K, odd.
        group_size: Number of groups of channels; each has its own kernels.
        scale_factor: s.
    """
    batch, (height, width) = len(features), features.shape[2:]
    rfeatures.copy_(features)
    kernels = _by_group(masks, group_size, scale_factor)
    padded = F.pad(features, [(kernel_size - 1) // 2] * 4)
    total = kernels.new_zeros(())
    for tap, row, column in _taps(kernel_size):
        part = padded[:, :, row : row + height, column : column + width]
        part = part.reshape(batch, group_size, -1, height, 1, width, 1)
        total = total + part * kernels[:, :, :, tap]
    output.copy_(total.reshape(output.shape))


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Compute the derivatives by features and kernels.

    Args:
        top_grad: (B, C, H · s, W · s), derivatives by the result.
        rfeatures: What the forward pass left.
        masks: As in :func:`carafe_forward`.
        rtop_grad: Not used.
        rbottom_grad_hs: Not used.
        rbottom_grad: Not used.
        rmask_grad: Not used.
        bottom_grad: (B, C, H, W); receives the derivatives by the features.
        mask_grad: Like ``masks``; receives the derivatives by the kernels.
        kernel_size: K, odd.
        group_size: Number of groups of channels.
        scale_factor: s.
    """
    batch, (height, width) = len(bottom_grad), bottom_grad.shape[2:]
    kernels = _by_group(masks, group_size, scale_factor)
    by_kernel = kernels.new_zeros(kernels.shape)
    grads = top_grad.reshape(
        batch, group_size, -1, height, scale_factor, width, scale_factor
    )
    edge = (kernel_size - 1) // 2
    padded = F.pad(rfeatures, [edge] * 4)
    by_padded = padded.new_zeros(padded.shape)
    for tap, row, column in _taps(kernel_size):
        rows, columns = slice(row, row + height), slice(column, column + width)
        part = padded[:, :, rows, columns]
        part = part.reshape(batch, group_size, -1, height, 1, width, 1)
        by_kernel[:, :, 0, tap] = (grads * part).sum(2)
        by_part = (grads * kernels[:, :, :, tap]).sum((4, 6))
        by_padded[:, :, rows, columns] += by_part.view(bottom_grad.shape)
    mask_grad.copy_(by_kernel.view(mask_grad.shape))
    bottom_grad.copy_(by_padded[:, :, edge : edge + height, edge : edge + width])
