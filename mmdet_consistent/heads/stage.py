"""Stages of a consistent head."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

import torch
from mmdet.models.task_modules.assigners import PointAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from ..task_modules import rule_of
from .targets import GroundTruth


@dataclass(eq=False)
class Stage:
    """A label set and a regression that start from the same anchors Aᵏ.

    Attributes:
        index: k. Stage 0 is the base head's own.
        weight: Weight of the classification loss under this stage's labels, one of
            (1, α, …) in Eq. 1. ``None`` if the stage supplies no labels.
        bbox_coder: mmdet's box coder of the deltas tᵏ. ``None`` if the stage has no
            regression.
        previous: The stage whose regression yields this stage's anchors.
        assigner: mmdet's assigner of ground truths to the stage's anchors.
        loss_cls: mmdet's classification loss module.
        box_loss: A :class:`BoxLoss`.

    The last four are ``None`` where they do not apply: for stage 0, without a
    ``train_cfg``, and for a head whose losses are functions.
    """

    index: int
    weight: Any = None
    bbox_coder: Any = None
    previous: Optional['Stage'] = None
    assigner: Any = None
    loss_cls: Any = None
    box_loss: Any = None

    def log_name(self, quantity: str) -> str:
        """Return the name under which a quantity of this stage is logged."""
        return f'{quantity}_s{self.index}' if self.index else quantity


def build_assigner(config: dict) -> Any:
    """Build the assigner of a later stage, and try it on a few boxes.

    Raises:
        ValueError: If it needs more than boxes and ground truths.
    """
    assigner = TASK_UTILS.build(config)
    if rule_of(assigner) is not None:
        return assigner
    size = torch.arange(1.0, 33)[:, None]
    boxes = torch.cat([size, size, 3 * size, 4 * size], dim=1)
    truth = InstanceData(bboxes=boxes[[4, 20]] + 1, labels=torch.tensor([0, 1]))
    why = 'takes boxes for points'
    if not isinstance(assigner, PointAssigner):
        try:
            valid = torch.ones(1, len(boxes), dtype=torch.bool)
            GroundTruth.pad([truth], None).assign(boxes[None], valid, assigner)
            return assigner
        except Exception as error:
            why = f'fails with boxes and ground truths alone ({error})'
    raise ValueError(
        f'stage_assigners: {type(assigner).__name__} {why}. A later stage has refined '
        'boxes, but no levels, points or scores to assign by: use SecondPassAssigner '
        'or MaxIoUAssigner'
    )


def loss_of_later_stage(loss: Any) -> Any:
    """Return the loss module of a later stage: the base head's, or a copy of it.

    A stateful loss (GHM) keeps separate statistics per stage. A loss that does not
    reduce is summed by the base head itself; here, its copy computes the mean. Numbers
    that change later, such as ``loss_weight``, are those of the base head's loss.
    """
    reduces = getattr(loss, 'reduction', None) != 'none'
    if reduces and not loss.state_dict():
        return loss
    own = copy.deepcopy(loss)
    if not reduces:
        own.reduction = 'mean'
    own.register_forward_pre_hook(partial(_follow, loss))
    return own


def _follow(base: Any, loss: Any, args: tuple) -> None:
    """Give a loss the numbers of the loss it is a copy of."""
    for name, value in vars(base).items():
        if isinstance(value, (int, float)) and name != 'training':
            setattr(loss, name, value)
