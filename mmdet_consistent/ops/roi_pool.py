"""RoI pooling: the largest value of the pixels that a bin touches.

torchvision's operator of that name rounds RoIs in another way than mmcv's.
"""

import torch
from torch import Tensor

from .sampling import as_rows, at_least_float32

# Pixels of bins at a time, which bounds the memory.
MAX_ENTRIES = 1 << 22


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Pool each RoI's bins.

    Args:
        input: (B, C, H, W).
        rois: (R, 5), index of the map, then xyxy in the image's pixels.
        output: (R, C, PH, PW); receives the pooled features, 0 for empty bins.
        argmax: (R, C, PH, PW) int32; receives the index of each maximum in its map,
            y · W + x, and -1 for empty bins.
        pooled_height: PH.
        pooled_width: PW.
        spatial_scale: Size of the map over that of the image.
    """
    height, width = input.shape[2:]
    rows = as_rows(at_least_float32(input))
    rois = rois.to(rows)
    start, end = rois[:, 1:3] * spatial_scale, (rois[:, 3:] + 1) * spatial_scale
    valid = ((end - start) > 0).all(1, keepdim=True)
    x, wide = _extents(start[:, 0], end[:, 0], pooled_width, width, valid)
    y, tall = _extents(start[:, 1], end[:, 1], pooled_height, height, valid)
    first = rois[:, 0].long() * height * width
    per_roi = (tall[:, :, None] * wide[:, None]).flatten(1).sum(1)
    for part in _parts(per_roi):
        # One list of pixels for all bins; a bin's are together, row by row.
        rows_of, columns_of = wide[part][:, None], tall[part][:, :, None]
        counts = (columns_of * rows_of).flatten()
        bin_of = torch.repeat_interleave(counts)
        offsets = counts.cumsum(0) - counts
        index = torch.arange(len(bin_of), device=rows.device) - offsets[bin_of]
        bin_width = rows_of.expand(-1, pooled_height, -1).flatten()[bin_of]
        top = y[part][:, :, None].expand(-1, -1, pooled_width).flatten()[bin_of]
        left = x[part][:, None].expand(-1, pooled_height, -1).flatten()[bin_of]
        within = (top + index // bin_width) * width + left + index % bin_width
        start_of = first[part].repeat_interleave(pooled_height * pooled_width)
        pixels = start_of[bin_of] + within
        largest, _, _, found = torch.embedding_bag(rows, pixels, offsets, mode=2)
        found = found - start_of[:, None]
        found[counts == 0] = -1
        shape = (len(part), pooled_height, pooled_width, -1)
        output[part] = largest.view(shape).permute(0, 3, 1, 2).to(output)
        argmax[part] = found.view(shape).permute(0, 3, 1, 2).to(argmax)


def _extents(
    start: Tensor, end: Tensor, bins: int, length: int, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """(R, bins) first pixels and numbers of pixels along one axis."""
    size = ((end - start) / bins)[:, None]
    edges = torch.arange(bins + 1, device=start.device).to(start) * size
    edges = edges + start[:, None]
    low = edges[:, :-1].floor().long().clamp(0, length)
    high = edges[:, 1:].ceil().long().clamp(0, length)
    return low, (high - low).clamp(min=0) * valid


def _parts(per_roi: Tensor) -> list[Tensor]:
    """Indices of consecutive RoIs, few enough to be pooled at once."""
    if len(per_roi) == 0:
        return []
    group = per_roi.cumsum(0).sub_(1).clamp_(min=0) // MAX_ENTRIES
    sizes = torch.unique_consecutive(group, return_counts=True)[1].tolist()
    return list(torch.arange(len(per_roi), device=per_roi.device).split(sizes))


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add each derivative to the pixel that was largest.

    Args:
        grad_output: (R, C, PH, PW), derivatives by the pooled features.
        rois: (R, 5).
        argmax: What the forward pass found.
        grad_input: (B, C, H, W); the derivatives are added to it.
        pooled_height: PH.
        pooled_width: PW.
        spatial_scale: Size of the map over that of the image.
    """
    channels, height, width = grad_input.shape[1:]
    channel = torch.arange(channels, device=rois.device).view(1, -1, 1, 1)
    first = rois[:, 0].long().view(-1, 1, 1, 1) * channels + channel
    pixels = first * (height * width) + argmax.clamp(min=0)
    grads = grad_output * (argmax >= 0)
    grad_input.view(-1).index_add_(0, pixels.flatten(), grads.flatten())
