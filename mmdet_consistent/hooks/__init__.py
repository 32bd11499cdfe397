"""Training hooks."""

from .progress import ProgressHook

__all__ = ['ProgressHook']
