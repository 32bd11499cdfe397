"""Detection heads trained by consistent optimization."""

from .consistent_mixin import ConsistentMixin
from .retina_head import ConsistentRetinaHead

__all__ = ['ConsistentMixin', 'ConsistentRetinaHead']
