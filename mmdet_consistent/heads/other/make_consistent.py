"""Consistent versions of any anchor-based head, including a user's own."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Optional, Union

from mmdet.models import dense_heads
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.registry import MODELS
from torch import nn

from ..consistent_mixin import ConsistentMixin
from ..retina_head import ConsistentRetinaHead
from ..ssd_head import ConsistentSSDHead, SSDStages
from . import named
from .free_anchor import FreeAnchorStages
from .generic import GenericStages
from .gfl import DistributionStages
from .yolact import YOLACTStages

# Later stages by the class that a head is derived from; the first match is used.
FAMILIES = (
    (dense_heads.SSDHead, SSDStages),
    (dense_heads.GFLHead, DistributionStages),
    (dense_heads.YOLACTHead, YOLACTStages),
    (dense_heads.FreeAnchorRetinaHead, FreeAnchorStages),
    (AnchorHead, GenericStages),
)
# mmdet's heads to their consistent versions.
NAMED: dict[type, type] = {
    kind.__bases__[-1]: kind
    for kind in (ConsistentRetinaHead, ConsistentSSDHead, *vars(named).values())
    if isinstance(kind, type) and issubclass(kind, ConsistentMixin)
    if len(kind.__bases__) > 1
}
# Why these heads, and those derived from them, have no consistent version.
REFUSED = {
    'TOODHead': 'it outputs boxes that it has aligned itself, not deltas of anchors',
    'VFNetHead': 'it refines its boxes itself, and starts from points',
    'RTMDetHead': 'it starts from points, not from anchors',
    'GuidedAnchorHead': 'it predicts its anchors, different ones for each image',
    'StageCascadeRPNHead': 'it is a stage of a cascade that refines its anchors itself',
    'LDHead': 'its loss needs the outputs of a teacher',
    'LADHead': 'its loss needs the outputs of a teacher',
    'ATSSVLFusionHead': 'its classes are words, and its loss needs their features',
}


def make_consistent(
    head: Any, box_outputs: Optional[Sequence[str]] = None
) -> type[ConsistentMixin]:
    """Return the consistent version of an anchor-based dense head.

    Args:
        head: A class derived from mmdet's ``AnchorHead``.
        box_outputs: Names of the attribute that may be the convolution with 4·A output
            channels. Default: the names in mmdet's heads.

    Returns:
        A class ``Consistent<Head>`` with the options of :class:`ConsistentMixin` and
        the head's own. Calling again returns the same class. A new class is not
        registered.

    Raises:
        ValueError: If the head has no consistent version. The message gives the reason.
    """
    if box_outputs is None and head in NAMED:
        return NAMED[head]
    if issubclass(head, ConsistentMixin):
        raise ValueError(f'{head.__name__} is already a consistent head')
    why = next((REFUSED[x.__name__] for x in head.__mro__ if x.__name__ in REFUSED), '')
    if not issubclass(head, AnchorHead):
        why = "it is not derived from mmdet's AnchorHead"
    if why:
        raise ValueError(f'{head.__name__} has no consistent version: {why}')
    return _derive(head, None if box_outputs is None else tuple(box_outputs))


@cache
def _derive(
    head: type, box_outputs: Optional[tuple[str, ...]]
) -> type[ConsistentMixin]:
    """Derive a class from a head and the later stages of its family."""

    def reduce(self: Any, protocol: Any) -> Any:
        if type(self).__reduce_ex__ is not vars(type(self)).get('__reduce_ex__'):
            return nn.Module.__reduce_ex__(self, protocol)  # of a user's subclass
        # Pickled by the head's class, since another process has not made this one.
        return _new, (head, box_outputs), self.__dict__

    family = next(stages for kind, stages in FAMILIES if issubclass(head, kind))
    members: dict[str, Any] = dict(
        __module__=__name__,
        __doc__=f'{head.__name__} under consistent optimization; the options are those '
        'of :class:`ConsistentMixin`.',
        __reduce_ex__=reduce,
    )
    if box_outputs is not None:
        members['box_outputs'] = box_outputs
    return type(f'Consistent{head.__name__}', (family, head), members)


def _new(head: type, box_outputs: Optional[tuple[str, ...]]) -> nn.Module:
    """Create an empty instance, for unpickling."""
    made = make_consistent(head, box_outputs)
    return made.__new__(made)


@MODELS.register_module(name='Consistent')
def build_consistent(
    head: Union[str, dict],
    box_outputs: Optional[Sequence[str]] = None,
    **options: Any,
) -> nn.Module:
    """Build the consistent version of a registered head: ``type='Consistent'``.

    Args:
        head: Name of a registered head, whose arguments stand beside it, or its config.
        box_outputs: See :func:`make_consistent`.
        **options: Options of the head and of :class:`ConsistentMixin`.
    """
    config = dict(type=head) if isinstance(head, str) else dict(head)
    kind = config.pop('type')
    base = MODELS.get(kind)
    if base is None:
        raise ValueError(f"type='Consistent': there is no registered head {kind!r}")
    return make_consistent(base, box_outputs)(**{**config, **options})
