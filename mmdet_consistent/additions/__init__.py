"""Extensions beyond the paper, one file each."""

from ..heads.addition import Addition, TrainingBatch
from .aligned_features import AlignedFeatures
from .localization_confidence import LocalizationConfidence
from .quality_targets import QualityTargets
from .soft_labels import SoftLabels

__all__ = [
    'Addition',
    'AlignedFeatures',
    'LocalizationConfidence',
    'QualityTargets',
    'SoftLabels',
    'TrainingBatch',
]
