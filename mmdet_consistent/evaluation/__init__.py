"""Metrics: COCO AP at chosen IoU thresholds, and the consistency of scores."""

from .checked_coco_metric import CheckedCocoMetric
from .coco_iou_metric import CocoIoUMetric
from .consistency_metric import ConsistencyMetric

__all__ = ['CheckedCocoMetric', 'CocoIoUMetric', 'ConsistencyMetric']
