"""COCO AP at chosen IoU thresholds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS

from .checked_coco_metric import CheckedCocoMetric


@METRICS.register_module()
class CocoIoUMetric(CheckedCocoMetric):
    """:class:`CheckedCocoMetric` at the given IoU thresholds only.

    mmdet keeps its own ``iou_thrs`` as a list, on which pycocotools fails when it
    compares it with a number. AP90 of the paper's Tables 2 and 3 is
    ``dict(type='CocoIoUMetric', iou_thrs=[0.9], prefix='coco90')``.

    Args:
        iou_thrs: IoU thresholds; ``mAP`` is the mean over them.
        **kwargs: Arguments of ``CocoMetric``.
    """

    iou_thrs: Any

    def __init__(self, iou_thrs: Sequence[float], **kwargs: Any) -> None:
        kwargs.setdefault('metric_items', ['mAP'])
        super().__init__(iou_thrs=list(iou_thrs), **kwargs)
        self.iou_thrs = np.asarray(self.iou_thrs)
