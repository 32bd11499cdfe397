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
from mmengine.config import config as mmengine_config
from mmengine.registry import init_default_scope

# mmdet reads it to predict, but its own SSD head has none. Our tools set it, too.
if not hasattr(SSDHead, 'loss_cls'):
    SSDHead.loss_cls = None
# MMEngine formats the config when a runner is built and at each checkpoint. That takes
# seconds, more than most of the training runs here. (Programs that tests start do it.)
mmengine_config.FormatCode = lambda text, **_: (text, False)


@pytest.fixture(autouse=True)
def mmdets_scope():
    """Every test looks names up in mmdet, whatever the one before it left."""
    init_default_scope('mmdet')
