"""Consistent optimization for MMDetection's single-shot detectors.

Importing the package registers its heads and task modules with mmdet, so one
``custom_imports = dict(imports=['mmdet_consistent'])`` in a config is enough.
"""

from . import compat
from .evaluation import CocoIoUMetric
from .heads import ConsistentMixin, ConsistentRetinaHead, ConsistentSSDHead
from .hooks import ProgressHook
from .task_modules import ChainedBBoxCoder, SecondPassAssigner
from .version import __version__

compat.apply()

__all__ = [
    'ChainedBBoxCoder',
    'CocoIoUMetric',
    'ConsistentMixin',
    'ConsistentRetinaHead',
    'ConsistentSSDHead',
    'ProgressHook',
    'SecondPassAssigner',
    '__version__',
]
