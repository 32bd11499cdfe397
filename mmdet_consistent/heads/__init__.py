"""Detection heads trained by consistent optimization."""

from .consistent_mixin import ConsistentMixin
from .other import GenericStages, make_consistent
from .retina_head import ConsistentRetinaHead
from .ssd_head import ConsistentSSDHead

__all__ = [
    'ConsistentMixin',
    'ConsistentRetinaHead',
    'ConsistentSSDHead',
    'GenericStages',
    'make_consistent',
]
