"""Detection heads trained by consistent optimization."""

from .any_head import make_consistent
from .consistent_mixin import ConsistentMixin
from .retina_head import ConsistentRetinaHead
from .ssd_head import ConsistentSSDHead

__all__ = [
    'ConsistentMixin',
    'ConsistentRetinaHead',
    'ConsistentSSDHead',
    'make_consistent',
]
