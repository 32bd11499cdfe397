"""What goes beyond the paper: each one file and one option."""

from .addition import Addition, TrainingBatch
from .aligned_features import AlignedFeatures

__all__ = ['Addition', 'AlignedFeatures', 'TrainingBatch']
