"""Refined anchors that count the more, the better they have become."""

from collections.abc import Sequence
from numbers import Real
from typing import Union

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..heads.addition import Addition, TrainingBatch
from ..heads.options import is_real
from ..heads.targets import StageTargets

Numbers = Union[float, Sequence[float]]


@MODELS.register_module()
class SoftLabels(Addition):
    """Weighs the later stages' positives by the IoU that they have reached.

    The paper's labels of Aᵏ are hard: at an IoU of 0.6 an anchor counts in full, just
    below it not at all. Here a positive of label stage k ≥ 1 whose refined box Aᵏ has
    IoU u with the ground truth that it is matched with counts with

        w(u) = max(floor, min(1, (u - low) / (high - low)))

    in the stage's classification loss, whose normaliser becomes Σ w (of each image,
    never below 1) instead of the number of positives. So a weight of 0 is an ignored
    anchor, in loss and normaliser, and as high → low the paper's threshold comes
    back. Negatives keep their weight; regression and stage 0 stay as they are.

    Positives weighed by IoU are known from IoU-balanced losses (Wu and Li, 2019); here
    it is the IoU of where the anchor *has got to*.

    Which anchors are positive is still the stage's assigner's to say. Give it the
    lower end, so that the ramp starts where positives do::

        additions=[dict(type='SoftLabels', low=0.5, high=0.7)],
        stage_assigners=dict(
            type='SecondPassAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)

    Nothing is added to the network, and nothing changes at inference. With
    ``cls_normalizer='first'`` the normaliser stays the first stage's. SSD mines its
    negatives by the number of positives, whatever they weigh.

    Args:
        low: IoU up to which a positive counts with ``floor``: one number, or one for
            each label stage after the first.
        high: IoU from which it counts in full, likewise.
        floor: The least weight, 0 to 1, likewise.

    Raises:
        ValueError: If a number is impossible, or there is no later label stage.
    """

    def __init__(
        self, low: Numbers = 0.5, high: Numbers = 0.7, floor: Numbers = 0.0
    ) -> None:
        super().__init__()
        self.low, self.high, self.floor = low, high, floor

    def attach(self, head: nn.Module) -> None:
        """Give each later label stage its own numbers."""
        super().attach(head)
        stages = range(1, head.label_stages)
        if not stages:
            raise ValueError(
                f'SoftLabels weighs the label stages after the first, but label_stages='
                f'{head.label_stages}: set label_stages to 2, or leave SoftLabels out'
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
                    '0 <= low < high <= 1 and 0 <= floor <= 1; for a hard threshold '
                    'leave it out and give stage_assigners the threshold'
                )

    @torch.no_grad()
    def adjust_targets(
        self, head: nn.Module, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[int, StageTargets]:
        """Weights and normalisers of the later label stages."""
        softened = {
            stage: _soften(target, *self.ramps[stage])
            for stage, target in targets.items()
            if stage in self.ramps
        }
        return {**targets, **softened}


def _soften(
    target: StageTargets, low: float, high: float, floor: float
) -> StageTargets:
    """The same targets, with positives that count by their IoU."""
    ramp = (target.positive_ious(target.boxes) - low) / (high - low)
    weight: Tensor = ramp.clamp(floor, 1)
    # What the weights leave of each image's part in the normaliser; whatever else
    # a sampler has counted in there stays.
    count = target.positive.sum(dim=1).clamp(min=1)
    soft_count = (weight * target.positive).sum(dim=1).clamp(min=1)
    own = target.avg_factor if target.cls_avg_factor is None else target.cls_avg_factor
    return target._replace(
        label_weights=torch.where(
            target.positive, target.label_weights * weight, target.label_weights
        ),
        cls_avg_factor=own - (count - soft_count).sum(),
    )


def _per_stage(name: str, value: Numbers, count: int) -> list[float]:
    """One finite number for each later label stage."""
    single = isinstance(value, Real)
    values = [value] * count if single else value
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or not all(is_real(v) for v in values):
        raise ValueError(
            f'SoftLabels.{name} must be a number, or a list with one for each label '
            f'stage after the first, got {value!r}'
        )
    if len(values) != count:
        raise ValueError(
            f'SoftLabels.{name}={value!r} has {len(values)} entries, but there are '
            f'{count} label stages after the first: give one for each, or one number'
        )
    return list(values)
