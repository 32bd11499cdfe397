"""Ground truths without area, which an augmentation or whole pixels may leave."""

import logging
from functools import cache

from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import InstanceList
from mmengine.logging import print_log
from torch import Tensor


def has_area(boxes: Tensor) -> Tensor:
    """Return which boxes (G, 4), xyxy in pixels, have an area: (G,) bool."""
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def with_area(instances: InstanceList) -> InstanceList:
    """Leave out ground truths without area, and say so once.

    mmdet's max-IoU assigner gives every anchor to such a box, whose deltas are
    infinite. A box with a NaN stays: it must not go unnoticed.
    """
    kept = []
    for gts in instances:
        boxes = get_box_tensor(gts.bboxes)
        good = has_area(boxes) | boxes.isnan().any(dim=1)
        kept.append(gts if good.all() else gts[good])
    if any(few is not gts for few, gts in zip(kept, instances)):
        say_once()
    return kept


@cache
def say_once() -> None:
    """Say that there are ground truths without area."""
    print_log(
        'a ground-truth box has no width or no height after the data pipeline: such '
        'boxes are matched with nothing (said once). tools/check_data.py names those '
        'in the annotation file; otherwise an augmentation makes them: filter them by '
        "dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)) after it",
        logger='current',
        level=logging.WARNING,
    )
