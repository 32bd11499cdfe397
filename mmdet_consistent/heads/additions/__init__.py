"""What goes beyond the paper: each one file and one option."""

from .addition import Addition, TrainingBatch
from .localization_confidence import LocalizationConfidence

__all__ = ['Addition', 'LocalizationConfidence', 'TrainingBatch']
