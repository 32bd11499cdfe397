"""Assigner and box coder of the later stages."""

from .chained_bbox_coder import ChainedBBoxCoder
from .max_iou import MatchRule, match_max_iou, rule_of
from .second_pass_assigner import SecondPassAssigner

__all__ = [
    'ChainedBBoxCoder',
    'MatchRule',
    'SecondPassAssigner',
    'match_max_iou',
    'rule_of',
]
