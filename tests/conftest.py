import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if not torch.cuda.is_available():  # kernels run in Triton's interpreter
    os.environ.setdefault('TRITON_INTERPRET', '1')

import mmdet_consistent  # noqa: F401  # isort: skip  # mmcv's operators for mmdet
from mmdet.models.dense_heads import SSDHead
from mmengine.registry import init_default_scope

# mmdet reads it to predict, but its own SSD head has none. Our tools set it, too.
if not hasattr(SSDHead, 'loss_cls'):
    SSDHead.loss_cls = None


@pytest.fixture(autouse=True)
def mmdets_scope():
    """Every test looks names up in mmdet, whatever the one before it left."""
    init_default_scope('mmdet')
