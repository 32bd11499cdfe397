"""Consistent versions of heads other than RetinaNet's and SSD's."""

from .make_consistent import make_consistent

__all__ = ['make_consistent']
