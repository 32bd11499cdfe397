"""Parameters and operations of whole detectors, counted by mmengine."""

from typing import NamedTuple

import torch
from mmengine.analysis import get_model_complexity_info

from .cases import Case
from .contenders import ADDITIONS, build_detector, contenders_of, quiet_logger

# A side in pixels. Small, because the network really runs: the share of a
# contender's own layers is the same at every size.
COST_SIDES = dict(retinanet=320, ssd=300)


class Cost(NamedTuple):
    """Of one contender: parameters, and multiply-adds for one image."""

    detector: str
    contender: str
    parameters: int
    flops: int


def model_cost(detector: str, contender: str) -> Cost:
    """Count a detector's parameters and its network's multiply-adds.

    Post-processing is not counted.
    """
    side = COST_SIDES[detector]
    case = Case(detector=detector, height=side, width=side)
    model = build_detector(case, contender).eval()
    model.forward = model._forward
    with torch.no_grad(), quiet_logger():
        found = get_model_complexity_info(
            model,
            inputs=torch.zeros(1, 3, side, side),
            show_table=False,
            show_arch=False,
        )
    return Cost(detector, contender, found['params'], found['flops'])


def all_costs() -> list[Cost]:
    """Every contender of both detectors; mmdet's own comes first."""
    return [
        model_cost(detector, contender)
        for detector in COST_SIDES
        for contender in (*contenders_of(detector), *ADDITIONS)
    ]
