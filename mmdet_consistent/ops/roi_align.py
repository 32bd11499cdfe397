"""RoIAlign: each bin is the average, or the maximum, of samples on a grid."""

import torch
from torch import Tensor

from .bins import Bins, Grid, add_entries, bins_of
from .sampling import as_rows, at_least_float32, clamped_corners, weighted_rows
from .torchvision import torchvision_operators

# mmcv's search for the largest sample begins here.
NO_SAMPLE = -10000


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool each RoI's bins.

    Args:
        input: (B, C, H, W).
        rois: (R, 5), index of the map, then xyxy in the image's pixels.
        output: (R, C, PH, PW); receives the pooled features.
        argmax_y: (R, C, PH, PW) if ``pool_mode`` is 0; receives the position of the
            largest sample, -1 if there is none.
        argmax_x: Likewise.
        aligned_height: PH.
        aligned_width: PW.
        spatial_scale: Size of the map over that of the image.
        sampling_ratio: Samples per bin and axis; 0: one per pixel.
        pool_mode: 0: maximum of the samples; 1: average.
        aligned: Whether pixel centres are at half a pixel.
    """
    grid = Grid(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    operators = torchvision_operators() if pool_mode == 1 else None
    if operators is not None:
        output.copy_(
            operators.roi_align(
                input.contiguous(),
                rois.to(input),
                spatial_scale,
                aligned_height,
                aligned_width,
                sampling_ratio,
                aligned,
            )
        )
        return
    if pool_mode == 0:
        output.fill_(NO_SAMPLE)
        argmax_y.fill_(-1)
        argmax_x.fill_(-1)
    rows = as_rows(at_least_float32(input.detach()))
    for bins in bins_of(rois.detach().to(rows), grid, input):
        if pool_mode == 1:
            pooled = weighted_rows(rows, bins.pixels, bins.weights) / bins.samples
        else:
            pooled, y, x = _largest(rows, bins)
            argmax_y[bins.rois] = y.permute(0, 3, 1, 2).to(argmax_y)
            argmax_x[bins.rois] = x.permute(0, 3, 1, 2).to(argmax_x)
        output[bins.rois] = pooled.permute(0, 3, 1, 2).to(output)


def _largest(rows: Tensor, bins: Bins) -> tuple[Tensor, Tensor, Tensor]:
    """Largest sample of each bin and channel, and where it is: 3 × (R, PH, PW, C)."""
    tall, wide = bins.y.shape[-1], bins.x.shape[-1]
    shape = (*bins.pixels.shape[:3], tall, 2, wide, 2)

    def by_sample(entries: Tensor) -> Tensor:
        return entries.view(shape).transpose(-3, -2).reshape(*shape[:3], -1, 4)

    pixels, weights = by_sample(bins.pixels), by_sample(bins.weights)
    values = weighted_rows(rows, pixels, weights)
    largest, sample = values.max(3)
    y = bins.y.expand(*shape[:3], tall).gather(3, (sample // wide).flatten(3))
    x = bins.x.expand(*shape[:3], wide).gather(3, sample % wide)
    found = largest > NO_SAMPLE
    largest = largest.clamp(min=NO_SAMPLE)
    minus = torch.full_like(y, -1)
    return largest, torch.where(found, y, minus), torch.where(found, x, minus)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Compute the derivatives by the maps.

    Args:
        grad_output: (R, C, PH, PW), derivatives by the pooled features.
        rois: As in :func:`roi_align_forward`, like the options below.
        argmax_y: What the forward pass found.
        argmax_x: Likewise.
        grad_input: (B, C, H, W); the derivatives are added to it.
        aligned_height: PH.
        aligned_width: PW.
        spatial_scale: Size of the map over that of the image.
        sampling_ratio: Samples per bin and axis; 0: one per pixel.
        pool_mode: 0: maximum of the samples; 1: average.
        aligned: Whether pixel centres are at half a pixel.
    """
    grid = Grid(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    if pool_mode == 0:
        _largest_backward(grad_output, rois, argmax_y, argmax_x, grad_input)
        return
    operators = torchvision_operators()
    if operators is not None:
        grad_input += operators._roi_align_backward(
            grad_output.contiguous(),
            rois.to(grad_output),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
        return
    grads = as_rows(at_least_float32(grad_output))
    add_entries(grads, list(bins_of(rois.to(grads), grid, grad_input)), grad_input)


def _largest_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
) -> None:
    """Add each derivative to the four pixels of the sample that was largest."""
    channels, height, width = grad_input.shape[1:]
    rows, of_rows = clamped_corners(argmax_y, height)
    columns, of_columns = clamped_corners(argmax_x, width)
    channel = torch.arange(channels, device=rois.device).view(1, -1, 1, 1)
    first = (rois[:, 0].long().view(-1, 1, 1, 1) * channels + channel) * height
    pixels = ((first[..., None] + rows) * width)[..., None] + columns[..., None, :]
    weights = of_rows[..., None] * of_columns[..., None, :]
    weights = weights * (argmax_y != -1)[..., None, None]
    grads = grad_output[..., None, None] * weights
    grad_input.view(-1).index_add_(0, pixels.flatten(), grads.flatten())
