"""COCO evaluation at chosen IoU thresholds."""

from .coco_iou_metric import CocoIoUMetric

__all__ = ['CocoIoUMetric']
