"""Consistent versions of mmdet's other anchor-based heads, and of one's own."""

import sys
from collections.abc import Sequence
from functools import cache
from typing import Optional, Union

from mmdet.models import dense_heads
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.registry import MODELS
from torch import nn

from ..consistent_mixin import ConsistentMixin
from ..retina_head import ConsistentRetinaHead
from ..ssd_head import ConsistentSSDHead, SSDStages
from .generic import AnyStages
from .gfl import DistributionStages
from .yolact import YOLACTStages

# Later stages by the class that a head comes from; the first that fits.
FAMILIES = (
    (dense_heads.SSDHead, SSDStages),
    (dense_heads.GFLHead, DistributionStages),
    (dense_heads.YOLACTHead, YOLACTStages),
    (AnchorHead, AnyStages),
)

# Why these and what comes from them have no consistent version.
REFUSED = {
    'TOODHead': 'its output is boxes that it has aligned by itself, not deltas of '
    'anchors',
    'VFNetHead': 'it refines its boxes by itself, and starts from points',
    'RTMDetHead': 'it starts from points, not from anchors',
    'GuidedAnchorHead': 'it predicts its anchors, other ones for each image',
    'StageCascadeRPNHead': 'it is a stage of a cascade, which refines its anchors by '
    'itself',
    'LDHead': 'its loss takes the outputs of a teacher',
    'LADHead': 'its loss takes the outputs of a teacher',
    'ATSSVLFusionHead': 'its classes are words, and its loss takes their features',
}
# mmdet's heads whose consistent version has a name, `Consistent` and theirs.
NAMED = (
    'AnchorHead',
    'RPNHead',
    'RetinaSepBNHead',
    'FreeAnchorRetinaHead',
    'PISARetinaHead',
    'FSAFHead',
    'ATSSHead',
    'PAAHead',
    'DDODHead',
    'GFLHead',
    'YOLOFHead',
    'YOLACTHead',
    'PISASSDHead',
)


@cache
def make_consistent(
    head: type, box_outputs: Optional[tuple[str, ...]] = None
) -> type[ConsistentMixin]:
    """The consistent version of an anchor-based dense head.

    Args:
        head: A class derived from mmdet's ``AnchorHead``.
        box_outputs: Attributes that may be the convolution that gives 4·A deltas;
            default: the names in mmdet's heads.

    Returns:
        A class ``Consistent<Head>`` with the options of :class:`ConsistentMixin`
        besides the head's own. It is not registered.

    Raises:
        ValueError: If there can be none; says why.
    """
    if head is dense_heads.RetinaHead:
        return ConsistentRetinaHead
    if head is dense_heads.SSDHead:
        return ConsistentSSDHead
    if issubclass(head, ConsistentMixin):
        raise ValueError(f'{head.__name__} is a consistent head already')
    why = next((REFUSED[x.__name__] for x in head.__mro__ if x.__name__ in REFUSED), '')
    if not issubclass(head, AnchorHead):
        why = "it isn't derived from mmdet's AnchorHead"
    if why:
        raise ValueError(f'{head.__name__} has no consistent version: {why}')
    family = next(stages for kind, stages in FAMILIES if issubclass(head, kind))
    name = f'Consistent{head.__name__}'
    members = dict(
        __module__=__name__,
        __doc__=f'{head.__name__} under consistent optimization; see '
        ':class:`ConsistentMixin` for the options.',
    )
    if box_outputs is not None:
        members['box_outputs'] = tuple(box_outputs)
    made = type(name, (family, head), members)
    # Where pickle looks for it.
    setattr(sys.modules[__name__], name, made)
    return made


@MODELS.register_module(name='Consistent')
def build_consistent(
    head: Union[str, dict], box_outputs: Optional[Sequence[str]] = None, **options
) -> nn.Module:
    """``type='Consistent'``: the consistent version of the head named.

    Args:
        head: Name of a registered head, whose arguments stand beside it, or its
            config.
        box_outputs: See :func:`make_consistent`.
        **options: The head's and :class:`ConsistentMixin`'s.
    """
    config = dict(type=head) if isinstance(head, str) else dict(head)
    kind = config.pop('type')
    base = MODELS.get(kind)
    if base is None:
        raise ValueError(f"type='Consistent': no head of the name {kind!r}")
    made = make_consistent(base, box_outputs and tuple(box_outputs))
    return made(**{**config, **options})


for _name in NAMED:
    MODELS.register_module(module=make_consistent(getattr(dense_heads, _name)))
