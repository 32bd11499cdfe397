"""Precision, recall and F1 by score threshold, and confusions between classes.

All at IoU 0.5 and under COCO's rules: a detection on a crowd region is neither right
nor wrong, and at most 100 detections per image and class count.
"""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from .annotations import AnnotatedSet
from .columns import Table, boxes_of, rows_by_image
from .matching import Matched, greedy_match, pairwise_iou
from .measures import NAN

MAX_THRESHOLDS = 2000  # more scores than these are thinned out


class Curve(NamedTuple):
    """Precision, recall and F1 at falling score thresholds (N).

    A threshold keeps the detections whose score is at least as high.

    Attributes:
        threshold: (N,) scores.
        precision: (N,) share of right ones among the detections; NaN if there are none.
        recall: (N,) share of the objects that are found.
        f1: (N,) harmonic mean of precision and recall.
    """

    threshold: NDArray
    precision: NDArray
    recall: NDArray
    f1: NDArray

    def best(self) -> dict[str, float]:
        """Return threshold, precision, recall and F1 where F1 is highest.

        Of equal ones, at the highest threshold. All are NaN if no F1 is known.
        """
        if np.isnan(self.f1).all():
            return dict.fromkeys(self._fields, NAN)
        top = int(np.nanargmax(self.f1))
        return {name: float(values[top]) for name, values in self._asdict().items()}


def class_curve(
    matched: Matched, label: int, thresholds: Optional[NDArray] = None
) -> Curve:
    """Return the curve of one class.

    Args:
        matched: The detections, matched to the objects.
        label: The class. Without objects, its values are NaN.
        thresholds: (N,) falling scores; default: those of the class's detections.
    """
    own = matched.of_class(label)
    order = np.argsort(-own.score, kind='stable')
    falling = own.score[order]
    if thresholds is None:
        thresholds = _thresholds(falling)
    kept = np.searchsorted(-falling, -thresholds, side='right')
    found = np.append(0, np.cumsum(own.found[order]))[kept]
    num = matched.num_objects[label] or NAN
    with np.errstate(invalid='ignore'):  # 0 / 0 where no detection is kept
        precision = np.where(np.isnan(num), NAN, found / kept)
    return Curve(thresholds, precision, found / num, 2 * found / (kept + num))


def mean_curve(matched: Matched, thresholds: Optional[NDArray] = None) -> Curve:
    """Return the mean of the curves over the classes that have objects.

    Args:
        matched: The detections, matched to the objects.
        thresholds: (N,) falling scores; default: those of the detections.
    """
    if thresholds is None:
        thresholds = _thresholds(matched.score[~matched.ignored])
    labels = np.flatnonzero(matched.num_objects).tolist()
    curves = [class_curve(matched, label, thresholds)[1:] for label in labels]
    values = np.reshape(curves, (len(labels), 3, len(thresholds)))
    known = ~np.isnan(values)
    with np.errstate(invalid='ignore'):
        means = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
    return Curve(thresholds, *means)


def _thresholds(scores: NDArray) -> NDArray:
    """Return the different scores, falling. Of many, return some at equal distances."""
    falling = np.unique(scores)[::-1]
    number = min(len(falling), MAX_THRESHOLDS)
    return falling[np.linspace(0, len(falling) - 1, number).astype(int)]


def confusion_matrix(
    detections: Table,
    matched: Matched,
    truth: AnnotatedSet,
    image_ids: Sequence,
    threshold: float,
) -> NDArray:
    """Count the objects of each class by the class that they are detected as.

    First come the true positives of COCO, so that the diagonal agrees with precision
    and recall; then, by falling score, each other detection takes the object left with
    which its IoU is highest, if that is at least 0.5.

    Args:
        detections: Table of detections.
        matched: The same detections, matched to the objects.
        truth: The annotations.
        image_ids: Images to count.
        threshold: Lowest score of the detections to count.

    Returns:
        (C + 1, C + 1) int64: class of the object by class of the detection. The last
        column counts the objects that are missed, the last row the detections that are
        on no object.
    """
    num = len(truth.classes)
    matrix = np.zeros((num + 1, num + 1), np.int64)
    keep = (matched.score >= threshold) & ~matched.ignored
    rows_of = rows_by_image({name: column[keep] for name, column in detections.items()})
    boxes, labels = boxes_of(detections)[keep], detections['label'][keep]
    for image_id in image_ids:
        rows = rows_of.get(image_id, np.zeros(0, np.int64))
        objects = truth.of_image(image_id)
        objects = objects.where(~objects.crowd)
        iou = pairwise_iou(boxes[rows], objects.boxes)
        match = greedy_match(np.where(labels[rows][:, None] == objects.labels, iou, 0))
        iou[match >= 0] = 0
        iou[:, match[match >= 0]] = 0
        match = np.maximum(match, greedy_match(iou))
        of_object = np.append(objects.labels, num)[match]
        np.add.at(matrix, (of_object, labels[rows]), 1)
        missed = np.delete(objects.labels, match[match >= 0])
        matrix[:, num] += np.bincount(missed, minlength=num + 1)
    return matrix
