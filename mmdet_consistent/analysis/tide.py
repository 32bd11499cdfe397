"""Share of each kind of error in the lost AP: TIDE (Bolya et al., ECCV 2020).

Follows the rules of ``tidecv`` 1.0.1, with which the tests compare it where that is
installed. The package itself is not used: it has had no release since 2020, and it
depends on pandas, seaborn and opencv-python, which displaces the headless build. AP
is read at COCO's 101 recalls. tidecv's differ from them in the last bit, which can
change an AP by a tenth of a point.
"""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from .annotations import AnnotatedSet, ImageObjects
from .columns import Table, boxes_of, concatenate, rows_by_image
from .matching import MATCH_IOU, MAX_DETECTIONS, greedy_match, pairwise_iou
from .measures import average_precision, nanmean

BACKGROUND_IOU = 0.1  # a detection below this IoU is on no object
# In the order in which a detection is tested for them; the names are TIDE's.
ERRORS = ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss')
MEANING = {
    'Cls': 'wrong class, box good enough',
    'Loc': 'right class, box inexact (IoU 0.1 to 0.5)',
    'Both': 'wrong class and inexact box',
    'Dupe': 'duplicate of an object found already',
    'Bkg': 'on background',
    'Miss': 'object not found, and no detection whose correction would find it',
}


class Tide(NamedTuple):
    """Error shares of one detector.

    Attributes:
        ap50: AP at IoU 0.5, in 0…1.
        gains: Increase of AP50 if only that kind of error were corrected, by name.
        counts: Number of errors of that kind, by name.
    """

    ap50: float
    gains: dict[str, float]
    counts: dict[str, int]


def error_shares(detections: Table, truth: AnnotatedSet, image_ids: Sequence) -> Tide:
    """Sort wrong detections and missed objects into TIDE's kinds of errors."""
    verdicts: list[Table] = []
    missed: list[int] = []  # class of each missed object
    num_objects = 0
    rows_of = rows_by_image(detections)
    for image_id in image_ids:
        objects = truth.of_image(image_id)
        rows = rows_of.get(image_id, np.zeros(0, dtype=np.int64))[:MAX_DETECTIONS]
        found = {name: column[rows] for name, column in detections.items()}
        judged, lost = _judge_image(found, objects, num_objects)
        verdicts.append(judged)
        missed += lost
        num_objects += len(objects.labels)
    return _gains(concatenate(verdicts), missed, truth.num_objects(image_ids))


def _judge_image(
    found: Table, objects: ImageObjects, first: int
) -> tuple[Table, list[int]]:
    """Judge the detections of an image (by falling score).

    Returns:
        For each detection its error (or TP), class, score, whether it is ignored, and
        number and class of the object that a correction would find (or -1), where the
        image's objects are numbered from ``first``; the classes of missed objects.
    """
    plain, crowds = objects.where(~objects.crowd), objects.where(objects.crowd)
    boxes, label = boxes_of(found), found['label']
    iou = pairwise_iou(boxes, plain.boxes)
    same = label[:, None] == plain.labels[None]
    match = greedy_match(np.where(same, iou, 0))
    numbers = np.arange(len(plain.labels))
    used = np.isin(numbers, match)
    inside = pairwise_iou(boxes, crowds.boxes, crowd=True) > MATCH_IOU
    inside &= label[:, None] == crowds.labels[None]
    pairs = [
        ('TP', -1) if match[row] >= 0 else _kind(iou[row], same[row], used)
        for row in range(len(label))
    ]
    # An object that is found already would become a duplicate.
    target = np.array([-1 if t >= 0 and used[t] else t for _, t in pairs], np.int64)
    table = dict(
        kind=np.array([kind for kind, _ in pairs], dtype=object),
        label=label,
        score=found['score'],
        ignored=inside.any(axis=1) & (match < 0),
        target=np.where(target >= 0, first + target, -1),
        target_label=np.append(plain.labels, -1)[target],
    )
    return table, plain.labels[~used & ~np.isin(numbers, target)].tolist()


def _kind(iou: NDArray, same: NDArray, used: NDArray) -> tuple[str, int]:
    """Name the error of a detection, and the object it was meant for (or -1)."""
    if len(iou) == 0:
        return 'Bkg', -1
    own, other = np.where(same, iou, 0), np.where(same, 0, iou)
    if BACKGROUND_IOU <= own.max() <= MATCH_IOU:
        return 'Loc', int(own.argmax())
    if other.max() >= MATCH_IOU:
        return 'Cls', int(other.argmax())
    if np.where(used, own, 0).max() >= MATCH_IOU:
        return 'Dupe', -1
    return ('Bkg' if iou.max() <= BACKGROUND_IOU else 'Both'), -1


def _gains(verdicts: Table, missed: list[int], num_objects: NDArray) -> Tide:
    """Correct each kind of error alone, and compare the APs."""
    label, score, target = (verdicts[n] for n in ('label', 'score', 'target'))
    kind, kept = verdicts['kind'], ~verdicts['ignored']
    right = kind == 'TP'
    base = _mean_ap(label, score, right, kept, num_objects)
    # Of the errors that mean the same object only the one with the best score (of
    # equal scores the first) is corrected; the others are removed.
    order = np.argsort(-score, kind='stable')
    order = order[target[order] >= 0]
    best = np.zeros(len(kind), dtype=bool)
    best[order[np.unique(target[order], return_index=True)[1]]] = True
    gains, counts = {}, {}
    for name in ERRORS[:-1]:
        wrong = kind == name
        counts[name] = int(wrong.sum())
        mended = wrong & best
        labels = np.where(mended, verdicts['target_label'], label)
        keep = (kept & ~wrong) | mended
        gains[name] = _mean_ap(labels, score, right | mended, keep, num_objects) - base
    counts['Miss'] = len(missed)
    fewer = num_objects - np.bincount(
        np.array(missed, dtype=np.int64), minlength=len(num_objects)
    )
    gains['Miss'] = _mean_ap(label, score, right, kept, num_objects, fewer) - base
    return Tide(base, {n: max(gain, 0.0) for n, gain in gains.items()}, counts)


def _mean_ap(
    label: NDArray,
    score: NDArray,
    right: NDArray,
    keep: NDArray,
    num_objects: NDArray,
    to_find: Optional[NDArray] = None,
) -> float:
    """Return the mean AP over the classes that have objects.

    ``to_find`` (C,) replaces the number of objects in the APs.
    """
    aps = []
    for index in np.flatnonzero(num_objects):
        number = int((num_objects if to_find is None else to_find)[index])
        own = keep & (label == index)
        ap = average_precision(score[own], right[own], number)
        # With nothing left to find, any detection is wrong.
        aps.append(0.0 if number == 0 and own.any() else ap)
    return nanmean(aps)
