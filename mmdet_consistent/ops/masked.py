"""Convolution at chosen pixels only, of guided anchoring."""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Copy the neighbourhood of each chosen pixel.

    Args:
        im: (1, C, H, W).
        mask_h_idx: (M,) int64, rows of the chosen pixels.
        mask_w_idx: (M,) int64, their columns.
        col: (C · kernel_h · kernel_w, M); receives the neighbourhoods.
        kernel_h: Height of a neighbourhood.
        kernel_w: Width of a neighbourhood.
        pad_h: Rows of zeros above and below the map.
        pad_w: Columns of zeros beside the map.
    """
    padded = F.pad(im[0], (pad_w, pad_w + kernel_w, pad_h, pad_h + kernel_h))
    down = torch.arange(kernel_h, device=im.device).view(-1, 1, 1)
    right = torch.arange(kernel_w, device=im.device).view(1, -1, 1)
    col.copy_(padded[:, mask_h_idx + down, mask_w_idx + right].view_as(col))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write one value per channel to each chosen pixel.

    Args:
        col: (C, M).
        mask_h_idx: (M,) int64, rows of the chosen pixels.
        mask_w_idx: (M,) int64, their columns.
        im: (1, C, H, W); receives the values.
        height: Not used.
        width: Not used.
        channels: Not used.
    """
    im[0, :, mask_h_idx, mask_w_idx] = col
