"""Multi-scale deformable attention, of Deformable DETR and its successors.

mmcv calls the compiled operator on a GPU; on a CPU it has a version of its own.
"""

import torch
from torch import Tensor

from .sampling import at_least_float32, padded_corners, weighted_rows


def _attend(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Attend. Differentiable by value, locations and weights."""
    batch, num_keys, heads, channels = value.shape
    height, width = spatial_shapes[:, :1], spatial_shapes[:, 1:]  # (L, 1)
    x, y = sampling_locations.unbind(-1)  # (B, Q, heads, L, P)
    rows_of, of_rows = padded_corners(y * height - 0.5, height)
    columns_of, of_columns = padded_corners(x * width - 0.5, width)
    keys = rows_of[..., :, None] * width[..., None, None] + columns_of[..., None, :]
    keys = keys + level_start_index.view(-1, 1, 1, 1)
    weights = of_rows[..., :, None] * of_columns[..., None, :]
    weights = weights * attention_weights[..., None, None]
    image = torch.arange(batch, device=value.device).view(-1, 1, 1, 1)
    head = torch.arange(heads, device=value.device).view(-1, 1)
    rows = (image * num_keys + keys.flatten(3)) * heads + head
    sums = weighted_rows(value.reshape(-1, channels), rows, weights.flatten(3))
    return sums.flatten(2)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sum values sampled around each query.

    Args:
        value: (B, K, heads, C), the levels' keys one after the other, row by row.
        value_spatial_shapes: (L, 2) int64, height and width of each level.
        value_level_start_index: (L,) int64, first key of each level.
        sampling_locations: (B, Q, heads, L, P, 2), x and y per level size.
        attention_weights: (B, Q, heads, L, P).
        im2col_step: Not used.

    Returns:
        (B, Q, heads · C).
    """
    tensors = (value, sampling_locations, attention_weights)
    wide = [at_least_float32(x.detach()) for x in tensors]
    return _attend(
        wide[0], value_spatial_shapes, value_level_start_index, *wide[1:]
    ).to(value)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Compute the derivatives into the tensors named for them.

    Args:
        value: As in :func:`ms_deform_attn_forward`, like the next four.
        value_spatial_shapes: (L, 2) int64.
        value_level_start_index: (L,) int64.
        sampling_locations: (B, Q, heads, L, P, 2).
        attention_weights: (B, Q, heads, L, P).
        grad_output: (B, Q, heads · C), derivatives by the result.
        grad_value: Like ``value``; receives the derivatives.
        grad_sampling_loc: Like ``sampling_locations``; likewise.
        grad_attn_weight: Like ``attention_weights``; likewise.
        im2col_step: Not used.
    """
    tensors = (value, sampling_locations, attention_weights)
    leaves = [at_least_float32(x.detach()).requires_grad_() for x in tensors]
    with torch.enable_grad():
        output = _attend(
            leaves[0], value_spatial_shapes, value_level_start_index, *leaves[1:]
        )
    grads = torch.autograd.grad(output, leaves, grad_output.to(output))
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        target.copy_(grad)
