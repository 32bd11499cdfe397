"""Deformable convolutions in operators that ONNX and its engines have."""

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

import mmcv.ops.deform_conv
import mmcv.ops.modulated_deform_conv
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair

from ..ops.deform import Shape, sampling_points


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    deform_groups: int = 1,
    *_: Any,
    mask: Optional[Tensor] = None,
    bias: Optional[Tensor] = None,
) -> Tensor:
    """Convolve at moved points, by ``grid_sample``.

    Args:
        x: (N, C, H, W).
        offset: (N, deform_groups · K · 2, OH, OW), y and x of each kernel point.
        weight: (O, C / groups, KH, KW).
        stride: One number, or vertical and horizontal; likewise the next two.
        padding: Likewise.
        dilation: Likewise.
        groups: Groups of channels with kernels of their own.
        deform_groups: Groups of channels with offsets of their own.
        *_: mmcv's further options, which don't change the result.
        mask: Weight of each point, (N, deform_groups · K, OH, OW).
        bias: (O,).

    Returns:
        (N, O, OH, OW).
    """
    pairs = (_pair(stride), _pair(padding), _pair(dilation))
    shape = Shape(*pairs, groups, deform_groups)
    channels, (height, width) = x.shape[1], x.shape[2:]
    out_h, out_w = offset.shape[2:]
    points = [
        ((2 * place + 1) / size - 1).reshape(-1, weight[0, 0].numel() * out_h, out_w)
        for place, size in zip(
            sampling_points(x, offset, weight, shape)[::-1], (width, height)
        )
    ]
    sampled = F.grid_sample(
        x.reshape(-1, channels // deform_groups, height, width),
        torch.stack(points, dim=-1),
        mode='bilinear',
        padding_mode='zeros',
        align_corners=False,
    )
    per_group = (channels // deform_groups, weight[0, 0].numel(), out_h, out_w)
    sampled = sampled.reshape(-1, deform_groups, *per_group)
    if mask is not None:
        sampled = sampled * mask.reshape(-1, deform_groups, 1, *per_group[1:])
    columns = sampled.reshape(-1, channels * weight[0, 0].numel(), out_h, out_w)
    return F.conv2d(columns, weight.flatten(1)[..., None, None], bias, groups=groups)


def _modulated(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Any, *rest: Any
) -> Tensor:
    """Convolve with a weight for each point. The arguments are mmcv's."""
    return deform_conv2d(x, offset, weight, *rest, mask=mask, bias=bias)


@contextlib.contextmanager
def traceable_deform_convs() -> Iterator[None]:
    """Let mmcv's layers call :func:`deform_conv2d` in place of compiled operators."""
    replaced = (
        (mmcv.ops.deform_conv, 'deform_conv2d', deform_conv2d),
        (mmcv.ops.modulated_deform_conv, 'modulated_deform_conv2d', _modulated),
    )
    own = [getattr(module, name) for module, name, _ in replaced]
    try:
        for module, name, function in replaced:
            setattr(module, name, function)
        yield
    finally:
        for (module, name, _), function in zip(replaced, own):
            setattr(module, name, function)
