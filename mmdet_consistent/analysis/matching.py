"""Which detection found which object."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .collect import CORNERS, Table
from .ground_truth import GroundTruth, ImageTruth

MAX_DETECTIONS = 100  # an image, as in COCO


class Matched(NamedTuple):
    """Detections of a split beside what they found; D detections.

    Attributes:
        label: (D,) class.
        score: (D,).
        iou: (D,) IoU with the nearest countable object of the class.
        found: (D,) bool: true positive at IoU 0.5 under COCO's rule, by which
            the best scores choose first and an object is found once.
        found_iou: (D,) IoU with the object found; 0 where nothing was.
        ignored: (D,) bool: neither right nor wrong (on a crowd region).
        num_objects: (C,) countable objects of each class.
    """

    label: NDArray
    score: NDArray
    iou: NDArray
    found: NDArray
    found_iou: NDArray
    ignored: NDArray
    num_objects: NDArray


def pairwise_iou(boxes: NDArray, others: NDArray, crowd: bool = False) -> NDArray:
    """IoU of boxes (D, 4) and (G, 4), xyxy, as (D, G) float64.

    With ``crowd`` it is the share of the first box that lies in the second.
    """
    boxes, others = boxes.astype(np.float64), others.astype(np.float64)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    if crowd:
        return shared / np.maximum(area, 1e-12)
    other_area = (others[:, 2:] - others[:, :2]).prod(axis=1)[None]
    return shared / np.maximum(area + other_area - shared, 1e-12)


def greedy_match(iou: NDArray, threshold: float) -> NDArray:
    """COCO's matching: in order of score, each takes the best object still free.

    Args:
        iou: (D, G); the detections by falling score.
        threshold: The lowest IoU of a match.

    Returns:
        (D,) index of the object found, -1 for none.
    """
    free = iou.copy()
    match = np.full(len(iou), -1)
    if iou.shape[1] == 0:
        return match
    # Only rows that reach the threshold at all can match.
    for row in (iou.max(axis=1) >= threshold).nonzero()[0]:
        # Of equal ones COCO takes the last.
        column = free.shape[1] - 1 - int(free[row, ::-1].argmax())
        if free[row, column] >= threshold:
            match[row] = column
            free[:, column] = -1
    return match


def by_image(detections: Table) -> dict:
    """Row indices of each image, by falling score."""
    order = np.lexsort((-detections['score'], detections['image_id']))
    ids, starts = np.unique(detections['image_id'][order], return_index=True)
    return dict(zip(ids.tolist(), np.split(order, starts[1:])))


def boxes_of(detections: Table, rows: NDArray) -> NDArray:
    """(D, 4) xyxy of these rows."""
    return np.stack([detections[name][rows] for name in CORNERS], axis=1)


def _per_class(
    detections: Table, truth: GroundTruth, image_ids: list
) -> Iterator[tuple[NDArray, NDArray, ImageTruth]]:
    """(rows, their boxes, the image's objects of that class)."""
    rows_of = by_image(detections)
    for image_id in image_ids:
        rows = rows_of.get(image_id)
        if rows is None:
            continue
        objects = truth.of_image(image_id)
        labels = detections['label'][rows]
        for label in np.unique(labels):
            mine = rows[labels == label][:MAX_DETECTIONS]
            same = objects.labels == label
            chosen = ImageTruth(*(field[same] for field in objects))
            yield mine, boxes_of(detections, mine), chosen


def match_detections(
    detections: Table, truth: GroundTruth, image_ids: list, threshold: float = 0.5
) -> Matched:
    """Match all detections of a split; see :class:`Matched`."""
    num = len(detections['score'])
    iou, found_iou = np.zeros(num), np.zeros(num)
    found, ignored = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool)
    for rows, boxes, objects in _per_class(detections, truth, image_ids):
        plain = objects.boxes[~objects.crowd]
        if len(plain):
            overlap = pairwise_iou(boxes, plain)
            iou[rows] = overlap.max(axis=1)
            match = greedy_match(overlap, threshold)
            hit = match >= 0
            found[rows[hit]] = True
            found_iou[rows[hit]] = overlap[hit.nonzero()[0], match[hit]]
        crowd = objects.boxes[objects.crowd]
        if len(crowd):
            inside = pairwise_iou(boxes, crowd, crowd=True).max(axis=1)
            ignored[rows] = (inside >= threshold) & ~found[rows]
    counts = np.zeros(len(truth.classes), dtype=np.int64)
    for image_id in image_ids:
        objects = truth.of_image(image_id)
        np.add.at(counts, objects.labels[~objects.crowd], 1)
    return Matched(
        detections['label'],
        detections['score'].astype(np.float64),
        iou,
        found,
        found_iou,
        ignored,
        counts,
    )
