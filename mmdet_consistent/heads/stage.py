"""Stages of a consistent head."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.models.task_modules.coders import BaseBBoxCoder
from torch import nn

from .box_loss import BoxLoss


@dataclass
class Stage:
    """A label set and a regression that start from the same anchors Aᵏ.

    Attributes:
        index: k. Stage 0 is the base head's own.
        weight: Weight of the classification loss under this stage's labels, one of
            (1, α, …) in Eq. 1. ``None`` if the stage supplies no labels.
        bbox_coder: Box coder of the stage's deltas tᵏ. ``None`` if the stage has no
            regression.
        assigner: Assigns ground truths to the stage's anchors.
        loss_cls: Classification loss module.
        box_loss: Box loss.
        previous: The stage whose regression yields this stage's anchors.

    The last four are ``None`` where they do not apply: without a ``train_cfg``, for a
    head whose losses are functions, and for stage 0.
    """

    index: int
    weight: Optional[float] = None
    bbox_coder: Optional[BaseBBoxCoder] = None
    assigner: Optional[BaseAssigner] = None
    loss_cls: Optional[nn.Module] = None
    box_loss: Optional[BoxLoss] = None
    previous: Optional['Stage'] = None

    def log_name(self, quantity: str) -> str:
        """Return the name under which a quantity of this stage is logged."""
        return f'{quantity}_s{self.index}' if self.index else quantity


def link_stages(weights: Sequence[float], coders: Sequence[BaseBBoxCoder]) -> list:
    """Create the stages of a head from its label weights and box coders.

    Args:
        weights: One classification weight per label stage.
        coders: One box coder per regression stage.

    Returns:
        ``max(len(weights), len(coders))`` stages, each linked to the previous one.
    """
    stages: list[Stage] = []
    for index in range(max(len(weights), len(coders))):
        stages.append(
            Stage(
                index,
                weight=weights[index] if index < len(weights) else None,
                bbox_coder=coders[index] if index < len(coders) else None,
                previous=stages[-1] if stages else None,
            )
        )
    return stages


def loss_of_later_stage(loss: nn.Module) -> nn.Module:
    """Return the loss module of a later stage: the base head's, or a copy of it.

    A stateful loss (GHM) keeps separate statistics per stage. A loss that does not
    reduce is summed by the base head itself; here, its copy computes the mean.
    """
    reduces = getattr(loss, 'reduction', None) != 'none'
    if reduces and not loss.state_dict():
        return loss
    loss = copy.deepcopy(loss)
    if not reduces:
        loss.reduction = 'mean'
    return loss
