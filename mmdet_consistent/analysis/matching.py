"""Assign detections to the objects that they find."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from numpy.typing import NDArray

from .annotations import AnnotatedSet
from .columns import Table, boxes_of, rows_by_image

MAX_DETECTIONS = 100  # per image and class, as in COCO
MATCH_IOU = 0.5  # the lowest IoU of a true positive


class Matched(NamedTuple):
    """Detections of a split and the objects that they found (D detections).

    Attributes:
        label: (D,) class.
        score: (D,) float64.
        iou: (D,) IoU with the nearest countable object of the class.
        found: (D,) bool, true positive at ``MATCH_IOU`` under COCO's rule: higher
            scores choose first, and an object is found once.
        found_iou: (D,) IoU with the object found, 0 for a false positive.
        ignored: (D,) bool, neither right nor wrong: on a crowd region, or beyond the
            ``MAX_DETECTIONS`` best ones.
        num_objects: (C,) countable objects of each class.
    """

    label: NDArray
    score: NDArray
    iou: NDArray
    found: NDArray
    found_iou: NDArray
    ignored: NDArray
    num_objects: NDArray

    def where(self, keep: NDArray) -> 'Matched':
        """Return the detections at which the mask ``keep`` (D,) is true."""
        names = self._fields[:-1]
        return self._replace(**{name: getattr(self, name)[keep] for name in names})

    def of_class(self, label: int) -> 'Matched':
        """Return the detections of a class that are not ignored."""
        return self.where((self.label == label) & ~self.ignored)


def pairwise_iou(boxes: NDArray, others: NDArray, crowd: bool = False) -> NDArray:
    """Return the IoU of every pair of boxes.

    Args:
        boxes: (D, 4), xyxy.
        others: (G, 4), xyxy.
        crowd: Return the share of each of ``boxes`` that lies in each of ``others``.

    Returns:
        (D, G) float64.
    """
    pair = [torch.from_numpy(b.astype(np.float64)) for b in (boxes, others)]
    return bbox_overlaps(*pair, mode='iof' if crowd else 'iou').numpy()


def greedy_match(iou: NDArray, threshold: float = MATCH_IOU) -> NDArray:
    """Match as COCO does: in order of score, each takes the best object left.

    Args:
        iou: (D, G) IoU; the detections by falling score.
        threshold: Lowest IoU of a match.

    Returns:
        (D,) int64, index of the object found or -1.
    """
    free = iou.copy()
    match = np.full(len(iou), -1)
    # The other rows cannot match.
    for row in np.flatnonzero(iou.max(axis=1, initial=0) >= threshold):
        # COCO takes the last of several equal ones.
        column = free.shape[1] - 1 - int(free[row, ::-1].argmax())
        if free[row, column] >= threshold:
            match[row] = column
            free[:, column] = -1
    return match


def match_detections(
    detections: Table, truth: AnnotatedSet, image_ids: Sequence
) -> Matched:
    """Match all detections of a split, image by image and class by class."""
    num = len(detections['score'])
    iou, found_iou = np.zeros(num), np.zeros(num)
    found, ignored = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool)
    for image_id, in_image in rows_by_image(detections).items():
        objects = truth.of_image(image_id)
        labels = detections['label'][in_image]
        for label in np.unique(labels):
            rows = in_image[labels == label]
            ignored[rows[MAX_DETECTIONS:]] = True
            rows = rows[:MAX_DETECTIONS]
            same = objects.where(objects.labels == label)
            if not len(same.labels):
                continue
            boxes = boxes_of(detections, rows)
            plain, crowd = same.boxes[~same.crowd], same.boxes[same.crowd]
            overlap = pairwise_iou(boxes, plain)
            iou[rows] = overlap.max(axis=1, initial=0)
            match = greedy_match(overlap)
            hit = match >= 0
            found[rows] = hit
            found_iou[rows[hit]] = overlap[hit, match[hit]]
            inside = pairwise_iou(boxes, crowd, crowd=True).max(axis=1, initial=0)
            ignored[rows] = (inside >= MATCH_IOU) & ~hit
    return Matched(
        detections['label'],
        detections['score'].astype(np.float64),
        iou,
        found,
        found_iou,
        ignored,
        truth.num_objects(image_ids),
    )
