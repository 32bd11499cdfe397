"""Device-dependent choices."""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Optional

import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version
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


def may_use_kernels(tensor: Tensor, select_rows: Optional[bool] = None) -> bool:
    """Return whether our Triton kernels may process a tensor and others beside it.

    Args:
        tensor: A tensor on the device in question.
        select_rows: An explicit choice by the caller between the eager ways.
    """
    if select_rows is not None or tensor.device.type != 'cuda':
        return False
    if tensor.dtype == torch.float64 or torch.are_deterministic_algorithms_enabled():
        return False
    return _has_kernels(tensor.device)


def _missing_for_kernels(device: torch.device) -> str:
    """Return why Triton cannot be used, or an empty text."""
    if importlib.util.find_spec('triton') is None:
        return 'Triton is not installed'
    import triton

    if digit_version(triton.__version__) < digit_version('3.0'):
        return f'Triton {triton.__version__} is older than 3.0'
    if torch.version.hip is None and torch.cuda.get_device_capability(device)[0] < 7:
        return 'Triton needs compute capability 7.0'
    try:
        from triton.runtime import driver

        driver.active.get_current_target()  # compiles Triton's launcher, in C
    except Exception as error:
        return f'Triton does not work: {error}'
    return ''


@cache
def _has_kernels(device: torch.device) -> bool:
    """Return whether Triton supports a device, and log the choice once."""
    missing = _missing_for_kernels(device)
    way = f'PyTorch operators ({missing})' if missing else 'Triton kernels'
    print_log(f'mmdet_consistent: head losses on {device} use {way}', 'current')
    return not missing


def launch(kernel: Any, grid: tuple, *args: Any, **options: Any) -> None:
    """Launch a Triton kernel. The budget test counts the calls."""
    kernel[grid](*args, **options)
