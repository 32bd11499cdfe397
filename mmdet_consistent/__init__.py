"""Consistent optimization for MMDetection's single-shot detectors.

Importing the package registers its heads and task modules with mmdet, so one
``custom_imports = dict(imports=['mmdet_consistent'])`` in a config is enough.
"""

from . import additions
from .datasets import CheckedCocoDataset, CheckedVOCDataset, CheckedXMLDataset
from .engine.hooks import (
    ConfigCheckHook,
    ConsistencyHook,
    FiniteLossHook,
    ProgressHook,
    SafeCheckpointHook,
    SeedHook,
    StageLossWeightHook,
)
from .evaluation import CocoIoUMetric, ConsistencyMetric
from .heads import (
    ConsistentMixin,
    ConsistentRetinaHead,
    ConsistentSSDHead,
    make_consistent,
)
from .task_modules import ChainedBBoxCoder, SecondPassAssigner
from .utils.configs import config_path, config_root, install_prefix
from .version import __version__

install_prefix()

__all__ = [
    'ChainedBBoxCoder',
    'CheckedCocoDataset',
    'CheckedVOCDataset',
    'CheckedXMLDataset',
    'CocoIoUMetric',
    'ConfigCheckHook',
    'ConsistencyHook',
    'ConsistencyMetric',
    'ConsistentMixin',
    'ConsistentRetinaHead',
    'ConsistentSSDHead',
    'FiniteLossHook',
    'ProgressHook',
    'SafeCheckpointHook',
    'SecondPassAssigner',
    'SeedHook',
    'StageLossWeightHook',
    '__version__',
    'additions',
    'config_path',
    'config_root',
    'make_consistent',
]
