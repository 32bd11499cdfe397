"""Checks and defaults of the stages' options."""

from collections.abc import Sequence
from typing import Optional, Union


def check_stages(
    label_stages: int,
    reg_stages: int,
    stage_loss_weights: Optional[Sequence[float]],
    cls_normalizer: str,
) -> tuple[float, ...]:
    """Refuse impossible stages.

    Returns:
        One classification loss weight for each label stage.

    Raises:
        ValueError: Naming the field, its value and the way out.
    """
    for name, value in (('label_stages', label_stages), ('reg_stages', reg_stages)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f'{name} must be a whole number of at least 1, got {value!r}; '
                '1 is the base detector, 2 the paper'
            )
    if label_stages - 1 > reg_stages:
        raise ValueError(
            f'label_stages={label_stages} needs the boxes of {label_stages - 1} '
            f'regression stages, but reg_stages={reg_stages}: set reg_stages to '
            f'at least {label_stages - 1}, or label_stages to at most '
            f'{reg_stages + 1}'
        )
    if cls_normalizer not in ('stage', 'first'):
        raise ValueError(
            "cls_normalizer must be 'stage' (each label set's own positives) or "
            f"'first' (the first stage's for all), got {cls_normalizer!r}"
        )
    if stage_loss_weights is None:
        return (1.0,) * label_stages
    weights = tuple(stage_loss_weights)
    if len(weights) != label_stages:
        raise ValueError(
            f'stage_loss_weights={weights} has {len(weights)} entries for '
            f'label_stages={label_stages}: give one weight for each label stage'
        )
    if any(not w >= 0 or w == float('inf') for w in weights) or not any(weights):
        raise ValueError(
            f'stage_loss_weights={weights} must be finite, not negative and not '
            'all 0: the classification output would learn nothing'
        )
    return weights


def broadcast(
    name: str, configs: Union[dict, Sequence[dict], None], count: int
) -> Optional[list[dict]]:
    """One config for every later stage; ``None`` stays ``None``.

    Raises:
        ValueError: If a list has another length than there are later stages.
    """
    if configs is None:
        return None
    if isinstance(configs, dict):
        return [configs] * count
    if len(configs) != count:
        raise ValueError(
            f'{name} has {len(configs)} entries, but there are {count} stages '
            'after the first one: give one config for each, or a single config '
            'for all'
        )
    return list(configs)


def default_assigners(count: int) -> list[dict]:
    """The paper's thresholds: 0.6/0.5 for stage 1, 0.7/0.6 for later ones."""
    first = dict(type='SecondPassAssigner', pos_iou_thr=0.6, neg_iou_thr=0.5)
    later = dict(type='SecondPassAssigner', pos_iou_thr=0.7, neg_iou_thr=0.6)
    return [first, *[later] * (count - 1)][:count]
