"""Triton kernels on a CPU, by Triton's interpreter."""

from contextlib import contextmanager

import pytest
import torch

from mmdet_consistent.losses import focal
from mmdet_consistent.task_modules import max_iou

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


@contextmanager
def kernels_everywhere():
    """Let the head's loss use the kernels, whatever the device is."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (focal, max_iou):
            patch.setattr(module, 'may_use_kernels', lambda *args: True)
        yield
