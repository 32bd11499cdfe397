"""Stages of a consistent head."""

import copy
from dataclasses import dataclass
from typing import Any, Optional


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


def loss_of_later_stage(loss: Any) -> Any:
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
