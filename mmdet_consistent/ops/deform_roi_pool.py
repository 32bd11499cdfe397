"""Deformable RoI pooling: RoIAlign with shifted bins."""

from typing import Optional

import torch
from torch import Tensor

from .bins import Bins, Grid, add_entries, bins_of
from .sampling import as_rows, at_least_float32, clamped_corners, weighted_rows


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Average each RoI's bins, which are shifted.

    Args:
        input: (B, C, H, W).
        rois: (R, 5), index of the map, then xyxy in the image's pixels.
        offset: (R, 2, PH, PW), shifts along x and y per RoI size, or empty.
        output: (R, C, PH, PW); receives the pooled features.
        pooled_height: PH.
        pooled_width: PW.
        spatial_scale: Size of the map over that of the image.
        sampling_ratio: Samples per bin and axis; 0: one per pixel.
        gamma: Factor of the shifts.
    """
    grid = Grid(pooled_height, pooled_width, spatial_scale, sampling_ratio, True)
    rows = as_rows(at_least_float32(input.detach()))
    rois = rois.detach().to(rows)
    shifts = _shifts(rois, offset, grid, gamma)
    for bins in bins_of(rois, grid, input, shifts):
        pooled = weighted_rows(rows, bins.pixels, bins.weights) / bins.samples
        output[bins.rois] = pooled.permute(0, 3, 1, 2).to(output)


def _shifts(rois: Tensor, offset: Tensor, grid: Grid, gamma: float) -> Optional[Tensor]:
    """(R, 2, PH, PW) shifts in the map's pixels."""
    if offset.numel() == 0:
        return None
    sizes = (rois[:, 3:] - rois[:, 1:3]) * grid.spatial_scale
    return gamma * sizes[:, :, None, None] * offset.detach().to(rois)


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Compute the derivatives by the maps and the shifts.

    Args:
        grad_output: (R, C, PH, PW), derivatives by the pooled features.
        input: As in :func:`deform_roi_pool_forward`, like the options below.
        rois: (R, 5).
        offset: (R, 2, PH, PW) or empty.
        grad_input: (B, C, H, W); the derivatives are added to it.
        grad_offset: Like ``offset``; receives the derivatives.
        pooled_height: PH.
        pooled_width: PW.
        spatial_scale: Size of the map over that of the image.
        sampling_ratio: Samples per bin and axis; 0: one per pixel.
        gamma: Factor of the shifts.
    """
    grid = Grid(pooled_height, pooled_width, spatial_scale, sampling_ratio, True)
    grads = as_rows(at_least_float32(grad_output))
    rois = rois.to(grads)
    shifts = _shifts(rois, offset, grid, gamma)
    all_bins = list(bins_of(rois, grid, input, shifts))
    add_entries(grads, all_bins, grad_input)
    if shifts is None:
        return
    rows = as_rows(at_least_float32(input))
    sizes = (rois[:, 3:] - rois[:, 1:3]) * spatial_scale
    grads = grads.view(len(rois), pooled_height, pooled_width, -1)
    for bins in all_bins:
        steps = _derivatives_by_position(rows, grads[bins.rois], bins, input.shape[2:])
        factor = gamma * sizes[bins.rois][:, :, None, None]
        grad_offset[bins.rois] = (factor * steps).to(grad_offset)


def _derivatives_by_position(
    rows: Tensor, grads: Tensor, bins: Bins, shape: torch.Size
) -> Tensor:
    """(R, 2, PH, PW) derivatives of the loss by the bins' positions along x and y.

    mmcv takes the slope between the corners of each sample, also where the sample was
    moved to the map's edge.
    """
    by_weight = [(rows[pixel] * grads).sum(-1) for pixel in bins.pixels.unbind(-1)]
    slopes = torch.stack(by_weight, -1)
    tall, wide = bins.y.shape[-1], bins.x.shape[-1]
    num = slopes.shape[:3]
    slopes = slopes.view(*num, tall, 2, wide, 2) / bins.samples
    (rows_of, of_rows), (columns_of, of_columns) = (
        clamped_corners(at, length) for at, length in zip((bins.y, bins.x), shape)
    )
    y = bins.y[..., None] - rows_of.flip(-1)
    x = bins.x[..., None] - columns_of.flip(-1)
    sign = y.new_tensor([-1, 1])
    seen = (of_rows.sum(-1) > 0)[..., :, None] & (of_columns.sum(-1) > 0)[..., None, :]
    slopes = slopes * seen[..., :, None, :, None]
    by_x = slopes * (sign * y)[..., :, :, None, None] * sign
    by_y = slopes * sign[:, None, None] * (sign * x)[..., None, None, :, :]
    return torch.stack([by_x, by_y], 1).flatten(4).sum(-1)
