"""Consistent optimization for MMDetection's single-shot detectors.

Importing the package registers its heads and task modules with mmdet, so one
``custom_imports = dict(imports=['mmdet_consistent'])`` in a config is enough.
"""

from . import ops as ops  # before anything of mmdet's: see there
from .additions import (
    Addition,
    AlignedFeatures,
    LocalizationConfidence,
    QualityTargets,
    SoftLabels,
)
from .backbones import EfficientNetLite
from .datasets import CheckedCocoDataset, CheckedVOCDataset, CheckedXMLDataset
from .engine.hooks import (
    ConfigCheckHook,
    ConsistencyHook,
    FiniteLossHook,
    SafeCheckpointHook,
    SeedHook,
    StageLossWeightHook,
)
from .evaluation import CheckedCocoMetric, CocoIoUMetric, ConsistencyMetric
from .heads import (
    ConsistentMixin,
    ConsistentRetinaHead,
    ConsistentSSDHead,
    make_consistent,
)
from .task_modules import ChainedBBoxCoder, SecondPassAssigner
from .utils.configs import config_path, config_root, install_prefix
from .utils.pretrained import install_names
from .version import __version__

install_prefix()
install_names()

__all__ = [
    'Addition',
    'AlignedFeatures',
    'ChainedBBoxCoder',
    'CheckedCocoDataset',
    'CheckedCocoMetric',
    'CheckedVOCDataset',
    'CheckedXMLDataset',
    'CocoIoUMetric',
    'ConfigCheckHook',
    'ConsistencyHook',
    'ConsistencyMetric',
    'ConsistentMixin',
    'ConsistentRetinaHead',
    'ConsistentSSDHead',
    'EfficientNetLite',
    'FiniteLossHook',
    'LocalizationConfidence',
    'QualityTargets',
    'SafeCheckpointHook',
    'SecondPassAssigner',
    'SeedHook',
    'SoftLabels',
    'StageLossWeightHook',
    '__version__',
    'config_path',
    'config_root',
    'make_consistent',
]
