"""Checks and defaults of a consistent head's options."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, Optional, Union

from .variants import Variant


class StageOptions(NamedTuple):
    """The options of the stages, checked and with defaults.

    Attributes:
        label_stages: Number of label sets.
        reg_stages: Number of regression outputs.
        loss_weights: One classification loss weight per label stage.
        variant: Detector of Figure 4.
    """

    label_stages: int
    reg_stages: int
    loss_weights: tuple[float, ...]
    variant: Variant

    @classmethod
    def check(
        cls,
        label_stages: Optional[int],
        reg_stages: Optional[int],
        stage_loss_weights: Optional[Sequence[float]],
        cls_normalizer: Optional[str],
        variant: Union[str, dict],
    ) -> 'StageOptions':
        """Fill in the defaults and refuse impossible stages.

        Raises:
            ValueError: If an option is invalid. The message names the field and its
                value, and suggests a fix.
        """
        detector = Variant.check(variant)
        default = 1 if detector.type == 'baseline' else 2
        label_stages = default if label_stages is None else label_stages
        reg_stages = default if reg_stages is None else reg_stages
        for name, value in (('label_stages', label_stages), ('reg_stages', reg_stages)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f'{name} must be an integer of at least 1, got {value!r}; 1 is the '
                    "base detector, 2 is the paper's setting"
                )
        if detector.type == 'baseline' and (label_stages, reg_stages) != (1, 1):
            raise ValueError(
                f"variant='baseline' has one stage, but label_stages={label_stages} "
                f'and reg_stages={reg_stages}: remove them, or use '
                "variant='consistent'"
            )
        if label_stages - 1 > reg_stages:
            raise ValueError(
                f'label_stages={label_stages} needs the boxes of {label_stages - 1} '
                f'regression stages, but reg_stages={reg_stages}: set reg_stages to '
                f'at least {label_stages - 1}, or label_stages to at most '
                f'{reg_stages + 1}'
            )
        if cls_normalizer not in ('stage', 'first', None):
            raise ValueError(
                "cls_normalizer must be 'stage' (each label set's own positives) or "
                f"'first' (the first stage's for all), got {cls_normalizer!r}"
            )
        weights = _check_weights(stage_loss_weights, label_stages)
        return cls(label_stages, reg_stages, weights, detector)


def _check_weights(
    stage_loss_weights: Optional[Sequence[float]], label_stages: int
) -> tuple[float, ...]:
    """Return one finite weight per label stage. The default is all 1."""
    if stage_loss_weights is None:
        return (1.0,) * label_stages
    is_list = isinstance(stage_loss_weights, Sequence)
    if not is_list or not all(isinstance(w, (int, float)) for w in stage_loss_weights):
        raise ValueError(
            f'stage_loss_weights must be a list of numbers, one for each of the '
            f'{label_stages} label stages, got {stage_loss_weights!r}'
        )
    weights = tuple(stage_loss_weights)
    if len(weights) != label_stages:
        raise ValueError(
            f'stage_loss_weights={weights} has {len(weights)} entries for '
            f'label_stages={label_stages}: give one weight per label stage'
        )
    if any(not w >= 0 or w == float('inf') for w in weights) or not any(weights):
        raise ValueError(
            f'stage_loss_weights={weights} must be finite, non-negative and not '
            'all 0: the classification output would learn nothing'
        )
    return weights


def is_real(value: Any) -> bool:
    """Return whether the value is a real number (bools excluded)."""
    return isinstance(value, Real) and not isinstance(value, bool)


def are_configs(value: Any) -> bool:
    """Return whether the value is a list of configs, each with a ``type``."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(c, dict) and 'type' in c for c in value)


def one_per_stage(
    name: str, configs: Union[dict, Sequence[dict], None], count: int
) -> Optional[list[dict]]:
    """Return one config per later stage; ``None`` stays ``None``.

    Raises:
        ValueError: If the option is neither a config nor a list of configs, or the list
            has another length than there are later stages.
    """
    if configs is None:
        return None
    if isinstance(configs, dict):
        configs = [configs] * count
    if not are_configs(configs):
        raise ValueError(
            f"{name} must be a config, dict(type='…', …), or a list of such configs, "
            f'one for each stage after the first, got {configs!r}'
        )
    if len(configs) != count:
        raise ValueError(
            f'{name} has {len(configs)} entries, but there are {count} stages '
            'after the first one: give one config per stage, or a single config '
            'for all'
        )
    return list(configs)


def default_assigners(count: int) -> list[dict]:
    """Return the paper's thresholds: 0.6/0.5 for stage 1, 0.7/0.6 for later ones."""
    first = dict(type='SecondPassAssigner', pos_iou_thr=0.6, neg_iou_thr=0.5)
    later = dict(type='SecondPassAssigner', pos_iou_thr=0.7, neg_iou_thr=0.6)
    return [first, *[later] * (count - 1)][:count]
