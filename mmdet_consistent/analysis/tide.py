"""Where the AP goes: the error shares of TIDE (Bolya et al., ECCV 2020).

The rules are those of ``tidecv`` 1.0.1, and the tests compare with it where it
is installed. It isn't used itself because it has had no release since 2020 and
pulls in opencv-python, which displaces the headless build that mmdet runs with
here, besides pandas and seaborn. AP is read at COCO's 101 recalls; tidecv's differ
from them in the last bit, which can move an AP by a tenth of a point.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .collect import Table
from .ground_truth import GroundTruth
from .matching import MAX_DETECTIONS, boxes_of, by_image, greedy_match, pairwise_iou
from .measures import average_precision

# The order in which an error is looked for; the names are TIDE's.
ERRORS = ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss')
MEANING = {
    'Cls': 'right place, wrong class',
    'Loc': 'right class, place not good enough (IoU 0.1 to 0.5)',
    'Both': 'wrong class and inexact place',
    'Dupe': 'the object was found already',
    'Bkg': 'nothing there',
    'Miss': 'object not found, and no detection that could be mended',
}


class Tide(NamedTuple):
    """Error shares of one detector.

    Attributes:
        ap50: AP at IoU 0.5, in 0…1.
        gain: What AP50 would gain were that error alone mended, by name.
        count: How many errors of the kind there are, by name.
    """

    ap50: float
    gain: dict[str, float]
    count: dict[str, int]


class _Ledger:
    """All detections of a split with what each one is, and what would mend it."""

    def __init__(self) -> None:
        self.kind: list[str] = []  # 'TP', '' (ignored) or an error's name
        self.label: list[int] = []
        self.score: list[float] = []
        self.target: list[int] = []  # object that mending would find, or -1
        self.ignored: list[bool] = []
        self.target_label: list[int] = []
        self.missed: list[int] = []  # label of each missed object
        self.num_objects: list[int] = []


def error_shares(
    detections: Table,
    truth: GroundTruth,
    image_ids: list,
    foreground: float = 0.5,
    background: float = 0.1,
) -> Tide:
    """Sort every wrong detection and missed object into TIDE's six kinds."""
    ledger = _Ledger()
    rows_of = by_image(detections)
    counts = np.zeros(len(truth.classes), dtype=np.int64)
    for image_id in image_ids:
        objects = truth.of_image(image_id)
        np.add.at(counts, objects.labels[~objects.crowd], 1)
        rows = rows_of.get(image_id, np.zeros(0, dtype=np.int64))[:MAX_DETECTIONS]
        _sort_image(
            ledger,
            boxes_of(detections, rows),
            detections['label'][rows],
            detections['score'][rows],
            objects,
            (foreground, background),
        )
    return _gains(ledger, counts)


def _sort_image(ledger, boxes, labels, scores, objects, limits) -> None:
    """Enter one image's detections (by falling score) into the ledger."""
    foreground, background = limits
    plain = ~objects.crowd
    gt_labels = objects.labels[plain]
    first_id = len(ledger.num_objects)
    ledger.num_objects.extend(gt_labels.tolist())
    iou = pairwise_iou(boxes, objects.boxes[plain])
    same = labels[:, None] == gt_labels[None]
    match = greedy_match(np.where(same, iou, 0), foreground)
    used = np.zeros(len(gt_labels), dtype=bool)
    used[match[match >= 0]] = True
    usable = np.zeros(len(gt_labels), dtype=bool)

    ignored = np.zeros(len(boxes), dtype=bool)
    for box, label in zip(objects.boxes[~plain], objects.labels[~plain]):
        inside = pairwise_iou(boxes, box[None], crowd=True)[:, 0] > foreground
        ignored |= inside & (labels == label) & (match < 0)

    for row in range(len(boxes)):
        kind, target = 'TP', -1
        if match[row] < 0:
            kind, target = _kind(iou[row], same[row], used, foreground, background)
            if target >= 0 and used[target]:
                target = -1  # mending would only make a duplicate
            elif target >= 0:
                usable[target] = True
        ledger.kind.append(kind)
        ledger.label.append(int(labels[row]))
        ledger.score.append(float(scores[row]))
        ledger.ignored.append(bool(ignored[row]))
        ledger.target.append(first_id + target if target >= 0 else -1)
        ledger.target_label.append(int(gt_labels[target]) if target >= 0 else -1)
    ledger.missed.extend(gt_labels[~used & ~usable].tolist())


def _kind(iou, same, used, foreground, background) -> tuple[str, int]:
    """What is wrong with a detection, and the object it was meant for (or -1)."""
    if len(iou) == 0:
        return 'Bkg', -1
    own = np.where(same, iou, 0)
    if background <= own.max() <= foreground:
        return 'Loc', int(own.argmax())
    other = np.where(same, 0, iou)
    if other.max() >= foreground:
        return 'Cls', int(other.argmax())
    if np.where(used, own, 0).max() >= foreground:
        return 'Dupe', -1
    if iou.max() <= background:
        return 'Bkg', -1
    return 'Both', -1


def _gains(ledger: _Ledger, counts: NDArray) -> Tide:
    kind = np.array(ledger.kind, dtype=object)
    label = np.array(ledger.label, dtype=np.int64)
    score = np.array(ledger.score)
    ignored = np.array(ledger.ignored, dtype=bool)
    target = np.array(ledger.target, dtype=np.int64)
    target_label = np.array(ledger.target_label, dtype=np.int64)
    right = kind == 'TP'
    base = _mean_ap(label, score, right, ~ignored, counts)
    # Several errors may mean the same object: only the best score is mended,
    # the others go. Of equal scores the first.
    order = np.argsort(-score, kind='stable')
    order = order[target[order] >= 0]
    _, best = np.unique(target[order], return_index=True)
    first = np.zeros(len(kind), dtype=bool)
    first[order[best]] = True
    gain, number = {}, {}
    for name in ERRORS:
        mine = kind == name
        if name == 'Miss':
            number[name] = len(ledger.missed)
            fewer = counts - np.bincount(
                np.array(ledger.missed, dtype=np.int64), minlength=len(counts)
            )
            after = _mean_ap(label, score, right, ~ignored, counts, fewer)
        else:
            number[name] = int(mine.sum())
            mended = mine & first
            keep = (~ignored & ~mine) | mended
            labels = np.where(mended, target_label, label)
            after = _mean_ap(labels, score, right | mended, keep, counts)
        gain[name] = max(after - base, 0.0)
    return Tide(base, gain, number)


def _mean_ap(label, score, right, keep, counts, fewer=None) -> float:
    """Mean AP over the classes that have objects (``fewer``: as if so many)."""
    values = []
    for index, number in enumerate(counts):
        mine = keep & (label == index)
        if number == 0:
            continue
        number = int(number if fewer is None else fewer[index])
        if number > 0:
            values.append(average_precision(score[mine], right[mine], number))
        elif mine.any():
            values.append(0.0)  # nothing to be found, and yet detections
    return float(np.mean(values)) if values else float('nan')
