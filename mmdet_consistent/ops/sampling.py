"""Bilinear sampling of feature maps: which pixels, with which weights.

Every operator that samples is a weighted sum of pixels' feature vectors. PyTorch has
that as a fused operation, ``embedding_bag``: no copy of the sampled vectors is made.
"""

from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values, float16 and bfloat16 as float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def clamped_corners(at: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Pixels around positions along one axis, as RoI operators choose them.

    Within a pixel of the map, a position is moved to its edge; beyond, its weights
    are 0.

    Args:
        at: (...) positions, in pixels; 0 is the first pixel's centre.
        length: Number of pixels.

    Returns:
        (..., 2) int64 indices of the pixels below and above, and (..., 2) weights.
    """
    inside = (at >= -1) & (at <= length)
    at = at.clamp(min=0)
    low = at.long().clamp(0, length - 1)
    high = (low + 1).clamp(max=length - 1)
    part = torch.where(low < high, at - low, torch.zeros_like(at))
    weights = torch.stack([1 - part, part], -1) * inside[..., None]
    return torch.stack([low, high], -1), weights


def padded_corners(at: Tensor, length: Union[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Pixels around positions along one axis, as deformable operators choose them.

    Beyond the edges the map is 0. Derivatives by the position are those of mmcv: 0
    from a whole pixel outside, and one-sided at pixel centres.

    Args:
        at: (...) positions, in pixels; 0 is the first pixel's centre.
        length: Number of pixels; a tensor is broadcast to the positions.

    Returns:
        (..., 2) int64 indices of the pixels below and above, and (..., 2) weights.
    """
    inside = (at > -1) & (at < length)
    low = at.detach().floor()
    part = at - low
    exists = torch.stack([inside & (low >= 0), inside & (low + 1 < length)], -1)
    indices = torch.stack([low, low + 1], -1).long() * exists
    return indices, torch.stack([1 - part, part], -1) * exists


def as_rows(features: Tensor) -> Tensor:
    """(B, C, H, W) features as (B · H · W, C)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def as_maps(rows: Tensor, like: Tensor) -> Tensor:
    """(B · H · W, C) rows as features of the shape of ``like``: (B, C, H, W)."""
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def weighted_rows(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Sum rows by weight. Differentiable by the rows and the weights.

    Args:
        rows: (N, C).
        indices: (..., K) int64 rows of each sum.
        weights: (..., K) of the rows' dtype.

    Returns:
        (..., C).
    """
    flat = indices.reshape(-1, indices.shape[-1])
    sums = F.embedding_bag(
        flat, rows, mode='sum', per_sample_weights=weights.reshape(flat.shape)
    )
    return sums.view(*indices.shape[:-1], rows.shape[1])


def transposed_rows(
    grads: Tensor, sums: Tensor, indices: Tensor, weights: Tensor, num_rows: int
) -> Tensor:
    """Derivative by the rows, given those by the weighted sums of them.

    It is a weighted sum as well: of the sums that a row takes part in.

    Args:
        grads: (M, C) derivatives by the sums.
        sums: (E,) int64, the sum of each entry.
        indices: (E,) int64, the row of each entry.
        weights: (E,) of the derivatives' dtype.
        num_rows: Number of rows, N.

    Returns:
        (N, C).
    """
    indices, order = indices.sort()
    counts = torch.bincount(indices, minlength=num_rows)
    return F.embedding_bag(
        sums[order],
        grads,
        counts.cumsum(0) - counts,
        mode='sum',
        per_sample_weights=weights[order],
    )
