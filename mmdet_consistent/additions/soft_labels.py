"""Label weights that grow with the IoU of the refined anchors."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, Union

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ..heads.addition import Addition, TrainingBatch
from ..heads.options import is_real
from ..heads.targets import StageTargets

Numbers = Union[float, Sequence[float]]


@MODELS.register_module()
class SoftLabels(Addition):
    """Weighs the later stages' positives by the IoU that they have reached.

    The paper's labels of Aᵏ are hard: at an IoU of 0.6 an anchor counts in full, just
    below it not at all. Here a positive of label stage k ≥ 1 whose refined box Aᵏ has
    IoU u with its matched ground truth counts with weight

        w(u) = max(floor, min(1, (u - low) / (high - low)))

    in the stage's classification loss, and the normaliser becomes Σ w (at least 1 per
    image) instead of the number of positives. So a weight of 0 means an ignored anchor,
    in the loss and in the normaliser, and as high → low the paper's threshold returns.
    Negatives keep their weight; the regression and stage 0 do not change.

    IoU-balanced losses (Wu and Li, 2019) weigh positives by their IoU, too; here it is
    the IoU of the *refined* anchor.

    The stage's assigner still decides which anchors are positive. Give it the lower
    end, so that the ramp starts where positives do::

        additions=[dict(type='SoftLabels', low=0.5, high=0.7)],
        stage_assigners=dict(
            type='SecondPassAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)

    The addition changes neither the network nor inference. With
    ``cls_normalizer='first'`` the normaliser stays the first stage's. SSD mines its
    negatives by the number of positives, whatever their weights.

    Args:
        low: IoU up to which a positive counts with ``floor``: one number, or one per
            label stage after the first.
        high: IoU from which it counts in full, likewise.
        floor: Least weight, 0 to 1, likewise.

    Raises:
        ValueError: If a number is invalid, or there is no later label stage.
    """

    def __init__(
        self, low: Numbers = 0.5, high: Numbers = 0.7, floor: Numbers = 0.0
    ) -> None:
        super().__init__()
        self.low, self.high, self.floor = low, high, floor

    def attach(self, head: Any) -> None:
        """Settle the numbers of each later label stage."""
        super().attach(head)
        stages = range(1, head.label_stages)
        if not stages:
            raise ValueError(
                f'SoftLabels weighs the label stages after the first, but label_stages='
                f'{head.label_stages}: set label_stages to 2, or remove SoftLabels'
            )
        numbers = (
            _per_stage(name, getattr(self, name), len(stages))
            for name in ('low', 'high', 'floor')
        )
        self.ramps = dict(zip(stages, zip(*numbers)))
        for low, high, floor in self.ramps.values():
            if not 0 <= low < high <= 1 or not 0 <= floor <= 1:
                raise ValueError(
                    f'SoftLabels(low={low}, high={high}, floor={floor}): needs '
                    '0 <= low < high <= 1 and 0 <= floor <= 1; for a hard threshold, '
                    'remove SoftLabels and give stage_assigners the threshold'
                )

    @torch.no_grad()
    def adjust_targets(
        self, head: Any, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[int, StageTargets]:
        """Change weights and normalisers of the later label stages."""
        softened = {
            stage: _soften(target, *self.ramps[stage])
            for stage, target in targets.items()
            if stage in self.ramps
        }
        return {**targets, **softened}


def _soften(
    target: StageTargets, low: float, high: float, floor: float
) -> StageTargets:
    """Return the same targets with positives weighed by their IoU."""
    ramp = (target.positive_ious(target.boxes) - low) / (high - low)
    weight: Tensor = ramp.clamp(floor, 1)
    # Replace each image's part in the normaliser; what a sampler counts besides stays.
    count = target.positive.sum(dim=1).clamp(min=1)
    soft_count = (weight * target.positive).sum(dim=1).clamp(min=1)
    return replace(
        target,
        label_weights=torch.where(
            target.positive, target.label_weights * weight, target.label_weights
        ),
        cls_avg_factor=target.label_factor - (count - soft_count).sum(),
    )


def _per_stage(name: str, value: Numbers, count: int) -> list[float]:
    """Return one number per later label stage."""
    values: Any = [value] * count if isinstance(value, Real) else value
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or not all(is_real(v) for v in values):
        raise ValueError(
            f'SoftLabels.{name} must be a number, or a list with one per label stage '
            f'after the first, got {value!r}'
        )
    if len(values) != count:
        raise ValueError(
            f'SoftLabels.{name}={value!r} has {len(values)} entries, but there are '
            f'{count} label stages after the first: give one per stage, or one number'
        )
    return list(values)
