"""RoIAlign and deformable RoI pooling: averages of samples on a grid in each bin."""

from collections.abc import Iterator
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from .sampling import (
    as_maps,
    as_rows,
    at_least_float32,
    clamped_corners,
    transposed_rows,
    weighted_rows,
)
from .torchvision import torchvision_operators

# Entries (pixels of samples) at a time, which bounds the memory.
MAX_ENTRIES = 1 << 24
# mmcv's search for the largest sample begins here.
NO_SAMPLE = -10000


class Bins(NamedTuple):
    """Bins of some RoIs whose sampling grids are of one size.

    ``rois`` (R,) holds the RoIs' indices, ``pixels`` and ``weights`` (R, PH, PW, K)
    the entries of each bin; the weights of a sample add up to 1 within the map. ``y``
    and ``x`` are the samples' positions: (R, PH, PW or 1, GH), (R, PH or 1, PW, GW).
    """

    rois: Tensor
    pixels: Tensor
    weights: Tensor
    y: Tensor
    x: Tensor

    @property
    def samples(self) -> int:
        """Number of samples in each bin."""
        return self.y.shape[-1] * self.x.shape[-1]


class Grid(NamedTuple):
    """What a RoI operator's caller chooses: bins, scale and sampling."""

    height: int
    width: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


def bins_of(
    rois: Tensor, grid: Grid, maps: Tensor, shifts: Optional[Tensor] = None
) -> Iterator[Bins]:
    """List the pixels and weights of each bin, for RoIs of one grid size at a time.

    Args:
        rois: (R, 5), index of the map, then xyxy in the image's pixels.
        grid: Bins, scale and sampling.
        maps: (B, C, H, W); only the shape matters.
        shifts: (R, 2, PH, PW), shift of each bin along x and y, in the map's pixels.
    """
    height, width = maps.shape[2:]
    x1, y1, x2, y2 = (rois[:, 1:] * grid.spatial_scale - grid.aligned / 2).unbind(1)
    widths, heights = x2 - x1, y2 - y1
    if not grid.aligned:
        widths, heights = widths.clamp(min=1), heights.clamp(min=1)
    sizes = torch.stack([heights / grid.height, widths / grid.width], 1)
    samples = sizes.ceil().long().clamp(min=0)
    if grid.sampling_ratio > 0:
        samples = torch.full_like(samples, grid.sampling_ratio)
    kinds, kind_of = samples.unique(dim=0, return_inverse=True)
    for kind, (tall, wide) in enumerate(kinds.tolist()):
        if tall * wide == 0:
            continue  # an empty RoI; its bins stay 0
        entries = 4 * tall * wide * grid.height * grid.width
        chosen = (kind_of == kind).nonzero()[:, 0]
        for part in chosen.split(max(1, MAX_ENTRIES // entries)):
            y = _positions(y1[part], sizes[part, 0], grid.height, tall)[:, :, None]
            x = _positions(x1[part], sizes[part, 1], grid.width, wide)[:, None]
            if shifts is not None:
                x = x + shifts[part, 0, :, :, None]
                y = y + shifts[part, 1, :, :, None]
            rows, of_rows = clamped_corners(y, height)
            columns, of_columns = clamped_corners(x, width)
            first = (rois[part, 0].long() * height)[:, None, None, None, None]
            pixels = ((first + rows) * width).flatten(3)[..., None]
            pixels = pixels + columns.flatten(3)[..., None, :]
            weights = of_rows.flatten(3)[..., None]
            weights = weights * of_columns.flatten(3)[..., None, :]
            yield Bins(part, pixels.flatten(3), weights.flatten(3), y, x)


def _positions(start: Tensor, size: Tensor, bins: int, samples: int) -> Tensor:
    """(R, bins, samples) positions of samples along one axis."""
    size = size[:, None, None]
    index = torch.arange(max(bins, samples), device=size.device).to(size)
    within = (index[:samples] + 0.5) * size / samples
    return start[:, None, None] + index[:bins, None] * size + within


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


def add_entries(grads: Tensor, all_bins: list[Bins], grad_input: Tensor) -> None:
    """Add to maps' derivatives those that bins' derivatives (R · PH · PW, C) imply."""
    if not all_bins:
        return
    sums = []
    for bins in all_bins:
        num = bins.pixels[0].numel() // bins.pixels.shape[-1]
        bin_of = bins.rois[:, None] * num + torch.arange(num, device=grads.device)
        sums.append(bin_of.view(-1, 1).expand(-1, bins.pixels.shape[-1]).flatten())
    rows = transposed_rows(
        grads,
        torch.cat(sums),
        torch.cat([bins.pixels.flatten() for bins in all_bins]),
        torch.cat([bins.weights.flatten() / bins.samples for bins in all_bins]),
        grad_input.numel() // grad_input.shape[1],
    )
    grad_input += as_maps(rows, grad_input)


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
    entry_weights = torch.zeros_like(bins.weights, requires_grad=True)
    with torch.enable_grad():
        pooled = weighted_rows(rows, bins.pixels, entry_weights)
    (slopes,) = torch.autograd.grad(pooled, entry_weights, grads)
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
