"""What goes beyond the paper: each one file and one option."""

from .addition import Addition, TrainingBatch
from .aligned_features import AlignedFeatures
from .localization_confidence import LocalizationConfidence

__all__ = ['Addition', 'AlignedFeatures', 'LocalizationConfidence', 'TrainingBatch']
