"""Consistent versions of mmdet's other anchor-based heads.

Their options are those of :class:`ConsistentMixin`; every other argument is the base
head's.
"""

from mmdet.models.dense_heads import (
    ATSSHead,
    DDODHead,
    FreeAnchorRetinaHead,
    FSAFHead,
    GFLHead,
    PAAHead,
    PISARetinaHead,
    PISASSDHead,
    RetinaSepBNHead,
    RPNHead,
    YOLACTHead,
    YOLOFHead,
)
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.registry import MODELS

from ..ssd_head import SSDStages
from .free_anchor import FreeAnchorStages
from .generic import GenericStages
from .gfl import DistributionStages
from .yolact import YOLACTStages


@MODELS.register_module()
class ConsistentAnchorHead(GenericStages, AnchorHead):
    """mmdet's plain anchor head under consistent optimization."""


@MODELS.register_module()
class ConsistentRPNHead(GenericStages, RPNHead):
    """Region proposal network under consistent optimization."""


@MODELS.register_module()
class ConsistentRetinaSepBNHead(GenericStages, RetinaSepBNHead):
    """NAS-FPN's RetinaNet head under consistent optimization."""


@MODELS.register_module()
class ConsistentFreeAnchorRetinaHead(FreeAnchorStages, FreeAnchorRetinaHead):
    """FreeAnchor's head under consistent optimization."""


@MODELS.register_module()
class ConsistentPISARetinaHead(GenericStages, PISARetinaHead):
    """PISA's RetinaNet head under consistent optimization."""


@MODELS.register_module()
class ConsistentFSAFHead(GenericStages, FSAFHead):
    """FSAF's head under consistent optimization."""


@MODELS.register_module()
class ConsistentATSSHead(GenericStages, ATSSHead):
    """ATSS's head under consistent optimization."""


@MODELS.register_module()
class ConsistentPAAHead(GenericStages, PAAHead):
    """PAA's head under consistent optimization."""


@MODELS.register_module()
class ConsistentDDODHead(GenericStages, DDODHead):
    """DDOD's head under consistent optimization."""


@MODELS.register_module()
class ConsistentGFLHead(DistributionStages, GFLHead):
    """GFL's head under consistent optimization."""


@MODELS.register_module()
class ConsistentYOLOFHead(GenericStages, YOLOFHead):
    """YOLOF's head under consistent optimization."""


@MODELS.register_module()
class ConsistentYOLACTHead(YOLACTStages, YOLACTHead):
    """YOLACT's box head under consistent optimization."""


@MODELS.register_module()
class ConsistentPISASSDHead(SSDStages, PISASSDHead):
    """PISA's SSD head under consistent optimization."""
