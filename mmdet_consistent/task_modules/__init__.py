"""Assigner and box coder of the later stages."""

from .chained_bbox_coder import ChainedBBoxCoder
from .max_iou import MatchRule, match_max_iou
from .overlaps import paired_iou
from .second_pass_assigner import SecondPassAssigner, rule_of

__all__ = [
    'ChainedBBoxCoder',
    'MatchRule',
    'SecondPassAssigner',
    'match_max_iou',
    'paired_iou',
    'rule_of',
]
