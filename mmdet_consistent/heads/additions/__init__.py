"""What goes beyond the paper: each one file and one option."""

from .addition import Addition, TrainingBatch

__all__ = ['Addition', 'TrainingBatch']
