"""Consistent versions of heads other than RetinaNet's and SSD's."""

from .generic import GenericStages
from .make_consistent import make_consistent

__all__ = ['GenericStages', 'make_consistent']
