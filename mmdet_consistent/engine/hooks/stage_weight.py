"""Schedules the loss weight of the later label stages."""

import math
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...heads import ConsistentMixin
from ...heads.options import is_real
from ..architecture import unwrapped

CURVES = ('linear', 'cosine')


@HOOKS.register_module()
class StageLossWeightHook(Hook):
    """Ramps α of Eq. 1, the loss weight of the label stages after the first.

    The refined labels are only as good as the first regression, which is poor early in
    training. With this hook the weight of label stage k ≥ 1 is

        α(t) · stage_loss_weights[k]

    where α goes from ``start_factor`` to ``end_factor`` while training goes from
    ``begin`` to ``end``, and is constant before and after. The first stage keeps its
    weight. α depends on the iteration number alone, so it survives resuming and is the
    same in all processes. It is logged as ``alpha``.

    A stage with weight 0 is not computed: its ``loss_cls_s1`` first appears in the log
    when α is above 0, and keeps its last value once α is 0 again.

    In a config::

        custom_hooks = [dict(type='StageLossWeightHook', end=4)]

    Args:
        start_factor: α until ``begin``, at least 0.
        end_factor: α from ``end`` on, at least 0.
        begin: Start of the ramp in epochs, or in iterations with ``by_epoch=False``;
            may be a fraction.
        end: End of the ramp in the same unit. Default: end of the training.
        by_epoch: Whether the unit is epochs; α changes in every iteration anyway.
        curve: ``'linear'``, or ``'cosine'``, which is slow at both ends.

    Raises:
        ValueError: If an option is invalid. Before training: if the model has no
            consistent head, or none with a weighted later label stage.
    """

    def __init__(
        self,
        start_factor: float = 0.0,
        end_factor: float = 1.0,
        begin: float = 0,
        end: Optional[float] = None,
        by_epoch: bool = True,
        curve: str = 'linear',
    ) -> None:
        numbers = dict(start_factor=start_factor, end_factor=end_factor, begin=begin)
        for name, value in numbers.items():
            if not is_real(value) or not 0 <= value < math.inf:
                raise ValueError(
                    f'StageLossWeightHook: {name} must be a number of at least 0, '
                    f'got {value!r}'
                )
        if end is not None and not (is_real(end) and begin < end < math.inf):
            raise ValueError(
                f'StageLossWeightHook: end must be after begin={begin}, got {end!r}; '
                'leave it out for the end of the training'
            )
        if curve not in CURVES:
            raise ValueError(
                f'StageLossWeightHook: curve must be in {CURVES}, got {curve!r}'
            )
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.begin = begin
        self.end = end
        self.by_epoch = by_epoch
        self.curve = curve
        self._heads: list[tuple[Any, tuple[float, ...]]] = []
        self._ramp = (0.0, math.inf)

    def before_train(self, runner: Runner) -> None:
        """Find the heads, their weights, and the iterations of the ramp."""
        if not self._heads:  # In a runner that trains on, the weights are ours.
            self._heads = _later_heads(runner)
        unit = len(runner.train_dataloader) if self.by_epoch else 1
        begin = self.begin * unit
        end = runner.max_iters if self.end is None else self.end * unit
        if begin >= end:
            units = 'epochs' if self.by_epoch else 'iterations'
            raise ValueError(
                f'StageLossWeightHook: begin={self.begin} {units} is not before the '
                f'end of the training, iteration {end}: set begin or end'
            )
        self._ramp = (begin, end)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set the weights of this iteration."""
        factor = self.factor(runner.iter)
        for head, weights in self._heads:
            for stage, weight in zip(head.stages[1:], weights[1:]):
                stage.weight = weight * factor
        runner.message_hub.update_scalar('train/alpha', factor)

    def factor(self, iteration: int) -> float:
        """Return α of an iteration, counted from 0."""
        begin, end = self._ramp
        done = min(max((iteration - begin) / (end - begin), 0), 1)
        if self.curve == 'cosine':
            done = (1 - math.cos(math.pi * done)) / 2
        return (1 - done) * self.start_factor + done * self.end_factor


def _later_heads(runner: Runner) -> list[tuple[Any, tuple[float, ...]]]:
    """Return the consistent heads with a weighted later label stage, and the weights.

    Raises:
        ValueError: If there are none.
    """
    model = unwrapped(runner.model)
    heads: list[Any] = [m for m in model.modules() if isinstance(m, ConsistentMixin)]
    if not heads:
        raise ValueError(
            f'StageLossWeightHook: {type(model).__name__} has no consistent head: set '
            "model.bbox_head.type to 'ConsistentRetinaHead' or 'ConsistentSSDHead', "
            'or leave the hook out'
        )
    later = [head for head in heads if any(head.stage_loss_weights[1:])]
    if not later:
        raise ValueError(
            'StageLossWeightHook: no later label stage has a weight to ramp '
            f'(label_stages={heads[0].label_stages}, stage_loss_weights='
            f'{heads[0].stage_loss_weights}): set label_stages to 2, or leave the '
            'hook out'
        )
    return [(head, tuple(head.stage_loss_weights)) for head in later]
