"""Reliable training: checkpoints, seeds, hooks, launching."""

from .safe_loading import make_safe

__all__ = ['make_safe']
