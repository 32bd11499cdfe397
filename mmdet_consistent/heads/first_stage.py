"""Stage 0: fused with the later stages, or computed by the base head's own code."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional, Union

import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor

from ..task_modules import rule_of

# What a subclass must not override if stage 0 is to be computed with the later stages.
TARGET_METHODS = (
    'get_anchors',
    'get_targets',
    '_get_targets_single',
    'loss_by_feat_single',
)


class FirstStage(NamedTuple):
    """Results of the base head's own code for stage 0.

    Attributes:
        losses: Its losses and ``num_pos``; empty if stage 0 is fused.
        avg_factor: Its normaliser N_0, if known.
    """

    losses: dict
    avg_factor: Union[Tensor, float, None]

    def in_form(self, losses: dict) -> dict:
        """Return later losses in the form of the first stage's: lists, as mmdet's."""
        plain = [isinstance(loss, Tensor) for loss in self.losses.values()]
        if plain and all(plain):
            return losses
        return {name: [loss] for name, loss in losses.items()}


class NoFirstStage:
    """Nothing can be trained: the head was built for inference."""

    is_fused = False

    def compute(self, head: Any, *args: Any) -> FirstStage:
        """Refuse to compute a loss."""
        raise ValueError(
            f'{type(head).__name__} was built without train_cfg, so it has no assigner '
            'to train with: give it a train_cfg'
        )


class FusedFirstStage:
    """Stage 0 is matched and trained by the code of the later stages, in one pass."""

    is_fused = True

    def compute(self, *args: Any) -> FirstStage:
        """Leave everything to the later stages' code."""
        return FirstStage({}, None)


class BaseHeadFirstStage:
    """Stage 0 is computed by the base head, whatever its loss is."""

    is_fused = False

    def compute(
        self, head: Any, base_loss: Callable[..., dict], *inputs: Any
    ) -> FirstStage:
        """Compute the losses of stage 0.

        Args:
            head: The consistent head.
            base_loss: The base head's ``loss_by_feat``.
            *inputs: What ``base_loss`` takes, with the first stage's outputs.
        """
        with as_base_head(head) as calls:
            losses = base_loss(*inputs)
        weight = head.stages[0].weight
        if weight != 1:
            _weigh_labels(head, losses, weight)
        if not calls:
            return FirstStage(losses, None)
        num_pos, avg_factor = calls[-1]
        return FirstStage({'num_pos': num_pos, **losses}, avg_factor)


def choose_first_stage(head: Any) -> Union[FusedFirstStage, BaseHeadFirstStage]:
    """Choose how a built head computes stage 0."""
    fused = (
        isinstance(head.sampler, PseudoSampler)
        and head.can_fuse_first_stage()
        and rule_of(head.assigner) is not None
    )
    return FusedFirstStage() if fused else BaseHeadFirstStage()


def overrides_none_of(head: type, ours: type, methods: tuple = TARGET_METHODS) -> bool:
    """Return whether a head class has exactly our class's version of some methods."""
    return all(getattr(head, name) is getattr(ours, name) for name in methods)


def other_output_names(head: Any) -> list[str]:
    """Return the names of the base head's outputs besides classes and boxes."""
    for owner in head.__mro__:
        if issubclass(owner, AnchorHead) and 'loss_by_feat' in vars(owner):
            names = list(inspect.signature(owner.loss_by_feat).parameters)
            if 'batch_gt_instances' in names:
                return names[3 : names.index('batch_gt_instances')]
    return []


@contextmanager
def as_base_head(head: Any) -> Iterator[list]:
    """Let a consistent head act as its base class, with the first stage's box coder.

    Yields:
        A list that collects the number of positives and the normaliser of each call of
        the base head's ``get_targets``, if that is ``AnchorHead``'s.
    """
    calls: list = []

    def get_targets(*args: Any, **kwargs: Any) -> tuple:
        targets = list(type(head).get_targets(head, *args, **kwargs))
        if head.sync_normalizer:
            [targets[4]] = mean_over_ranks([targets[4]], targets[0][0].device)
        # Now, since some heads write into the lists that they get.
        labels = torch.cat(targets[0], dim=1)
        positive = (labels >= 0) & (labels < head.num_classes)
        calls.append((positive.sum().float(), targets[4]))
        return tuple(targets)

    coder = head.bbox_coder
    head.bbox_coder = head.stages[0].bbox_coder
    if head.has_plain_targets():
        head.get_targets = get_targets
    try:
        yield calls
    finally:
        head.bbox_coder = coder
        head.__dict__.pop('get_targets', None)


def mean_over_ranks(factors: list, device: torch.device) -> list:
    """Average normalisers over the processes, in one exchange. Each is at least 1."""
    if get_world_size() == 1:
        return factors
    total = torch.stack(
        [torch.as_tensor(f, dtype=torch.float32, device=device) for f in factors]
    )
    return list(reduce_mean(total).clamp(min=1).unbind())


def _weigh_labels(head: Any, losses: dict, weight: Optional[float]) -> None:
    """Multiply the base head's classification losses by their weight in Eq. 1."""
    names = [name for name in losses if 'loss' in name and 'cls' in name]
    if not names:
        raise ValueError(
            f'stage_loss_weights={head.stage_loss_weights}: the loss of '
            f'{type(head).__name__} has no classification part to weigh (it has '
            f'{", ".join(losses)}); the first weight must be 1'
        )
    for name in names:
        value = losses[name]
        is_list = isinstance(value, (list, tuple))
        losses[name] = [x * weight for x in value] if is_list else value * weight
