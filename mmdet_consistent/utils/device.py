"""Device-dependent choices."""

from contextlib import AbstractContextManager, nullcontext
from typing import Optional

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager:
    """Switch autocast off on a tensor's device, if this torch knows any for it."""
    try:
        return torch.autocast(tensor.device.type, enabled=False)
    except RuntimeError:  # MPS before torch 2.5
        return nullcontext()


def may_select_rows(tensor: Tensor, choice: Optional[bool] = None) -> bool:
    """Return whether rows may be selected by their values.

    On a GPU the host would wait to learn how many rows there are. There all rows are
    computed, and those that do not count are masked.

    Args:
        tensor: A tensor on the device in question.
        choice: An explicit choice, which takes precedence.
    """
    return tensor.device.type == 'cpu' if choice is None else choice
