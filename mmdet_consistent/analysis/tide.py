"""Share of each kind of error in the lost AP: TIDE (Bolya et al., ECCV 2020).

Follows the rules of ``tidecv`` 1.0.1, with which the tests compare it where that is
installed. The package itself is not used: it has had no release since 2020, and it
depends on pandas, seaborn and opencv-python, which displaces the headless build. AP
is read at COCO's 101 recalls. tidecv's differ from them in the last bit, which can
change an AP by a tenth of a point.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .annotations import AnnotatedSet, ImageObjects
from .columns import Table, boxes_of, concatenate, rows_by_image
from .matching import MATCH_IOU, MAX_DETECTIONS, greedy_match, pairwise_iou
from .measures import average_precision, nanmean

BACKGROUND_IOU = 0.1  # a detection below this IoU is on no object
# In the order in which a detection is tested for them; the names are TIDE's.
ERRORS = ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss')


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
    labels: list[int] = []  # of all objects
    rows_of = rows_by_image(detections)
    for image_id in image_ids:
        objects = truth.of_image(image_id)
        rows = rows_of.get(image_id, np.zeros(0, dtype=np.int64))[:MAX_DETECTIONS]
        found = {name: column[rows] for name, column in detections.items()}
        verdicts.append(_judge_image(found, objects, len(labels)))
        labels += objects.labels[~objects.crowd].tolist()
    return _gains(concatenate(verdicts), np.array(labels, np.int64), len(truth.classes))


def _judge_image(found: Table, objects: ImageObjects, first: int) -> Table:
    """Judge the detections of an image (by falling score).

    Returns:
        For each detection its error (or TP), class, score, whether it is ignored, and
        number and class of the object that it finds or would find if corrected (or
        -1), where the image's objects are numbered from ``first``.
    """
    plain, crowds = objects.where(~objects.crowd), objects.where(objects.crowd)
    boxes, label = boxes_of(found), found['label']
    # The last column stands for no object: it overlaps nothing and has no class.
    iou = np.pad(pairwise_iou(boxes, plain.boxes), ((0, 0), (0, 1)))
    labels = np.append(plain.labels, -1)
    same = label[:, None] == labels
    own, other = np.where(same, iou, 0), np.where(same, 0, iou)
    match = greedy_match(own)
    used = np.isin(np.arange(len(labels)), match)
    best = own.max(axis=1)
    errors = {
        'TP': match >= 0,
        'Loc': (best >= BACKGROUND_IOU) & (best <= MATCH_IOU),
        'Cls': other.max(axis=1) >= MATCH_IOU,
        'Dupe': np.where(used, own, 0).max(axis=1) >= MATCH_IOU,
        'Bkg': iou.max(axis=1) <= BACKGROUND_IOU,
    }
    kind = np.select(list(errors.values()), list(errors), 'Both')
    nearest = [own.argmax(axis=1), other.argmax(axis=1)]
    target = np.select([kind == 'Loc', kind == 'Cls'], nearest, match)
    # An object that is found already would become a duplicate.
    target = np.where(used[target], match, target)
    inside = pairwise_iou(boxes, crowds.boxes, crowd=True) > MATCH_IOU
    inside &= label[:, None] == crowds.labels
    return dict(
        kind=kind,
        label=label,
        score=found['score'],
        ignored=inside.any(axis=1) & (match < 0),
        target=np.where(target >= 0, first + target, -1),
        target_label=labels[target],
    )


def _gains(verdicts: Table, labels: NDArray, num_classes: int) -> Tide:
    """Correct each kind of error alone, and compare the APs."""
    label, score, target = (verdicts[n] for n in ('label', 'score', 'target'))
    kind, kept = verdicts['kind'], ~verdicts['ignored']
    num_objects = np.bincount(labels, minlength=num_classes)

    def mean_ap(
        label: NDArray, right: NDArray, keep: NDArray, to_find: NDArray
    ) -> float:
        aps = []
        for index in np.flatnonzero(num_objects):
            number, own = int(to_find[index]), keep & (label == index)
            ap = average_precision(score[own], right[own], number)
            # With nothing left to find, any detection is wrong.
            aps.append(0.0 if number == 0 and own.any() else ap)
        return nanmean(aps)

    # Of the detections that mean the same object only the one with the best score (of
    # equal scores the first) is corrected; the others are removed.
    order = np.argsort(-score, kind='stable')
    order = order[target[order] >= 0]
    best = np.zeros(len(kind), dtype=bool)
    best[order[np.unique(target[order], return_index=True)[1]]] = True
    right = kind == 'TP'
    aps, counts = {}, {}
    for name in ERRORS[:-1]:
        wrong = kind == name
        counts[name] = int(wrong.sum())
        mended = wrong & best
        corrected = np.where(mended, verdicts['target_label'], label)
        keep = (kept & ~wrong) | mended
        aps[name] = mean_ap(corrected, right | mended, keep, num_objects)
    reached = labels[np.isin(np.arange(len(labels)), target)]
    counts['Miss'] = len(labels) - len(reached)
    to_find = np.bincount(reached, minlength=num_classes)
    aps['Miss'] = mean_ap(label, right, kept, to_find)
    base = mean_ap(label, right, kept, num_objects)
    return Tide(base, {n: max(ap - base, 0.0) for n, ap in aps.items()}, counts)
