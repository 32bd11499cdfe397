"""Bins of RoIs as weighted sums of pixels: averages of samples on a grid."""

from collections.abc import Iterator
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from .sampling import as_maps, clamped_corners, transposed_rows

# Entries (pixels of samples) at a time, which bounds the memory.
MAX_ENTRIES = 1 << 24


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
    """Settings of a RoI operator: bins, scale and sampling."""

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
    for tall, wide, chosen in _by_samples(sizes, grid.sampling_ratio):
        entries = 4 * tall * wide * grid.height * grid.width
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


def _by_samples(sizes: Tensor, ratio: int) -> Iterator[tuple[int, int, Tensor]]:
    """Samples per bin, down and across, and the RoIs that have so many.

    Args:
        sizes: (R, 2), height and width of the RoIs' bins.
        ratio: Samples per axis; 0: one per pixel, which leaves out empty RoIs.
    """
    if len(sizes) == 0:
        return
    if ratio > 0:
        yield ratio, ratio, torch.arange(len(sizes), device=sizes.device)
        return
    samples = sizes.ceil().long().clamp(min=0)
    kinds, kind_of = samples.unique(dim=0, return_inverse=True)
    for kind, (tall, wide) in enumerate(kinds.tolist()):
        if tall * wide > 0:
            yield tall, wide, (kind_of == kind).nonzero()[:, 0]


def _positions(start: Tensor, size: Tensor, bins: int, samples: int) -> Tensor:
    """(R, bins, samples) positions of samples along one axis."""
    size = size[:, None, None]
    index = torch.arange(max(bins, samples), device=size.device).to(size)
    within = (index[:samples] + 0.5) * size / samples
    return start[:, None, None] + index[:bins, None] * size + within


def add_entries(grads: Tensor, all_bins: list[Bins], grad_input: Tensor) -> None:
    """Add to maps' derivatives those that bins' derivatives (R · PH · PW, C) imply."""
    if not all_bins:
        return
    sums = []
    for bins in all_bins:
        _, bins_h, bins_w, entries = bins.pixels.shape
        within = torch.arange(bins_h * bins_w, device=grads.device)
        bin_of = bins.rois[:, None] * len(within) + within
        sums.append(bin_of.view(-1, 1).expand(-1, entries).flatten())
    rows = transposed_rows(
        grads,
        torch.cat(sums),
        torch.cat([bins.pixels.flatten() for bins in all_bins]),
        torch.cat([bins.weights.flatten() / bins.samples for bins in all_bins]),
        grad_input.numel() // grad_input.shape[1],
    )
    grad_input += as_maps(rows, grad_input)
