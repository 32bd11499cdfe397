"""Reliable training: checkpoints, seeds, hooks, launching."""

from .checkpoint import make_safe

__all__ = ['make_safe']
