"""Memory layouts of a level's logits, read without rearranging them.

A level has N images, A anchors per place, C channels per anchor, and H × W places:

=================  ======================  ==================================
layout             shape                   order of the rows
=================  ======================  ==================================
a feature map      (N, A·C, H, W)
its class rows     (N·A, C, H·W)           image, anchor, place
… channels-last    (N·H·W·A, C, 1)         image, place, anchor
mmdet's order      (N, H·W·A)              image, place, anchor
=================  ======================  ==================================
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def class_rows(scores: Tensor, num_channels: int) -> Tensor:
    """View a feature map as (B, C, P), with the classes in the middle.

    Args:
        scores: Logits of one level, (N, A·C, H, W); channels run over anchors, then
            classes.
        num_channels: C.

    Returns:
        (N·A, C, H·W), or (N·H·W·A, C, 1) for a map in channels-last memory.
    """
    if is_channels_last(scores):
        return scores.permute(0, 2, 3, 1).reshape(-1, num_channels, 1)
    return scores.reshape(-1, num_channels, scores.shape[2] * scores.shape[3])


def anchor_rows(values: Tensor, scores: Tensor, num_channels: int) -> Tensor:
    """Bring one level's values per anchor into the order of :func:`class_rows`.

    Args:
        values: (K, N, H·W·A), in mmdet's order of anchors.
        scores: The level's logits.
        num_channels: C.

    Returns:
        (K, B, P).
    """
    if is_channels_last(scores):
        return values.reshape(len(values), -1, 1)
    height, width = scores.shape[2:]
    anchors = scores.shape[1] // num_channels
    split = values.unflatten(2, (height * width, anchors))
    return split.transpose(2, 3).flatten(1, 2)


def mmdet_order(rows: Tensor, scores: Tensor) -> Tensor:
    """Bring rows (K, B, P) back into mmdet's order, (K, N, H·W·A)."""
    num_images = len(scores)
    if is_channels_last(scores):
        return rows.reshape(len(rows), num_images, -1)
    return rows.unflatten(1, (num_images, -1)).transpose(2, 3).flatten(2)


def flatten_levels(levels: list[Tensor], channels: int) -> Tensor:
    """Copy levels of (N, A·channels, H, W) into one (N, ΣHWA, channels)."""
    rows = [x.permute(0, 2, 3, 1).reshape(len(x), -1, channels) for x in levels]
    return torch.cat(rows, dim=1)


def flatten_deltas(levels: list[Tensor]) -> Tensor:
    """Copy levels of (N, A·4, H, W) into one (N, ΣHWA, 4) of contiguous coordinates."""
    planes = [x.unflatten(1, (-1, 4)).permute(2, 0, 3, 4, 1).flatten(2) for x in levels]
    return torch.cat(planes, dim=2).movedim(0, -1)


def is_channels_last(scores: Tensor) -> bool:
    """Return whether the channels of a place are adjacent in memory."""
    return not scores.is_contiguous() and scores.is_contiguous(
        memory_format=torch.channels_last
    )


def split_levels(
    values: Tensor, levels: Sequence[Tensor], num_channels: int
) -> list[Tensor]:
    """Split values per anchor, (K, N, A), by level: (K, B, P) each."""
    counts = [x.shape[1] // num_channels * x.shape[2] * x.shape[3] for x in levels]
    return [
        anchor_rows(part, scores, num_channels)
        for part, scores in zip(values.split(counts, dim=2), levels)
    ]
