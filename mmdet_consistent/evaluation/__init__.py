"""Evaluation: COCO AP at chosen IoU thresholds, consistency of score and place."""

from .coco_iou_metric import CocoIoUMetric
from .consistency_metric import ConsistencyMetric

__all__ = ['CocoIoUMetric', 'ConsistencyMetric']
