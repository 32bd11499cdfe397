"""Assigner and box coder of the later stages."""

from .chained_bbox_coder import ChainedBBoxCoder
from .second_pass_assigner import SecondPassAssigner

__all__ = ['ChainedBBoxCoder', 'SecondPassAssigner']
