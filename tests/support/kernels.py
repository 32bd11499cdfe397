"""Triton kernels on a CPU, by Triton's interpreter."""

from contextlib import contextmanager

import pytest
import torch

from mmdet_consistent.losses import focal
from mmdet_consistent.task_modules import max_iou

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def require_triton():
    """Skip where Triton is missing, or cannot interpret kernels on a CPU."""
    pytest.importorskip('triton', '3.0', reason='Triton 3 has wheels for Linux alone')
    if DEVICE == 'cpu':
        reason = "Triton's interpreter fails with NumPy 2 before Triton 3.3"
        pytest.importorskip('triton', '3.3', reason=reason)


@contextmanager
def kernels_everywhere():
    """Let the head's loss use the kernels, whatever the device is."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (focal, max_iou):
            patch.setattr(module, 'may_use_kernels', lambda *args: True)
        yield
