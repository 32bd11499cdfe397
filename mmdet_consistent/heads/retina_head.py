"""ConRetinaNet's head."""

from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS

from .consistent_mixin import ConsistentMixin


@MODELS.register_module()
class ConsistentRetinaHead(ConsistentMixin, RetinaHead):
    """RetinaNet's head under consistent optimization (ConRetinaNet).

    Towers and the classification output are
    :class:`mmdet.models.dense_heads.RetinaHead`'s; ``retina_reg`` gives one
    set of deltas per regression stage. The options are those of
    :class:`ConsistentMixin`; every other argument is ``RetinaHead``'s.
    """

    box_output_convs = ('retina_reg',)
