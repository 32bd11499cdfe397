"""Numbers about score and place, from plain arrays."""

from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from .matching import Matched

RECALLS = np.linspace(0, 1, 101)


class Binned(NamedTuple):
    """Mean and spread of y for x in bins; B bins.

    Attributes:
        centers: (B,) middle of each bin.
        mean: (B,) mean of y; NaN in an empty bin.
        std: (B,) standard deviation of y (of the population, not the sample).
        weight: (B,) how many x fell into the bin.
    """

    centers: NDArray
    mean: NDArray
    std: NDArray
    weight: NDArray


def binned(
    x: NDArray, y: NDArray, weight: Optional[NDArray] = None, num_bins: int = 20
) -> Binned:
    """Mean and standard deviation of y over equal bins of x in 0…1.

    Args:
        x: (N,) in 0…1; 1 belongs to the last bin.
        y: (N,).
        weight: (N,); how many each stands for. Default: one.
        num_bins: Number of bins.
    """
    weight = np.ones(len(x)) if weight is None else weight.astype(np.float64)
    which = bin_index(x, num_bins)
    total = np.bincount(which, weight, num_bins)
    with np.errstate(invalid='ignore', divide='ignore'):
        mean = np.bincount(which, weight * y, num_bins) / total
        # Two passes: a difference of large sums would lose small spreads.
        square = np.bincount(which, weight * (y - mean[which]) ** 2, num_bins)
        std = np.sqrt(square / total)
    centers = (np.arange(num_bins) + 0.5) / num_bins
    return Binned(centers, mean, std, total)


def bin_index(x: NDArray, num_bins: int) -> NDArray:
    """Bin of each x in 0…1; on an edge, the upper one (1.0: the last)."""
    # A hair up: 0.6 in single precision belongs into the bin that begins there.
    index = np.floor(np.asarray(x, dtype=np.float64) * num_bins + 1e-5)
    return np.clip(index.astype(np.int64), 0, num_bins - 1)


def spearman(x: NDArray, y: NDArray) -> float:
    """Rank correlation; NaN for fewer than two or constant values."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float('nan')
    from scipy.stats import rankdata  # slow to import, and seldom needed

    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


class Reliability(NamedTuple):
    """Reliability diagram; B bins of the score.

    Attributes:
        score: (B,) mean score of the detections in the bin; NaN if empty.
        precision: (B,) share of them that are right at IoU 0.5.
        quality: (B,) mean of the IoU, counting 0 for the wrong ones.
        count: (B,) detections in the bin.
    """

    score: NDArray
    precision: NDArray
    quality: NDArray
    count: NDArray


def reliability(matched: Matched, num_bins: int = 10) -> Reliability:
    """What a score promises, and what it keeps."""
    keep = ~matched.ignored
    score = matched.score[keep]
    right = binned(score, matched.found[keep].astype(float), num_bins=num_bins)
    quality = binned(score, matched.found_iou[keep], num_bins=num_bins)
    promised = binned(score, score, num_bins=num_bins)
    return Reliability(promised.mean, right.mean, quality.mean, right.weight)


def laece(matched: Matched, num_bins: int = 25) -> float:
    """Localisation-aware expected calibration error (Oksuz et al., CVPR 2023).

    For each class the mean over the detections of |score − precision · IoU| by
    bins of the score, where IoU is the mean over the right ones (IoU ≥ 0.5);
    then the mean over the classes that have detections. 0 is best.
    """
    errors = []
    for label in np.unique(matched.label[~matched.ignored]):
        keep = (matched.label == label) & ~matched.ignored
        score = matched.score[keep]
        promised = binned(score, score, num_bins=num_bins)
        # precision · mean IoU of the right ones = mean IoU with 0 for the wrong.
        kept = binned(score, matched.found_iou[keep], num_bins=num_bins)
        gap = np.abs(promised.mean - kept.mean)
        full = promised.weight > 0
        errors.append((gap[full] * promised.weight[full]).sum() / len(score))
    return float(np.mean(errors)) if errors else float('nan')


class Lrp(NamedTuple):
    """Optimal localisation-recall-precision error; 0 is best, 1 worst.

    Attributes:
        lrp: The error at the best score threshold.
        localisation: Mean of 1 − IoU of the right ones there.
        false_positive: 1 − precision there.
        false_negative: 1 − recall there.
        threshold: That score threshold.
    """

    lrp: float
    localisation: float
    false_positive: float
    false_negative: float
    threshold: float


def optimal_lrp(
    score: NDArray, found: NDArray, iou: NDArray, num_objects: int, tau: float = 0.5
) -> Lrp:
    """The oLRP of one class (Oksuz et al., ECCV 2018; TPAMI 2021).

    LRP(s) = (Σ over right ones of (1 − IoU)/(1 − τ) + FP + FN) / (TP + FP + FN),
    for the detections with a score of at least s; the least over all s.

    Args:
        score: (D,) scores of the class's detections.
        found: (D,) bool, right at IoU τ.
        iou: (D,) IoU with what was found.
        num_objects: Objects of the class.
        tau: τ.
    """
    nothing = Lrp(1.0, float('nan'), float('nan'), 1.0, float('nan'))
    if num_objects == 0:
        return Lrp(*[float('nan')] * 5)
    if not found.any():
        return nothing
    order = np.argsort(-score, kind='stable')
    score, found, iou = score[order], found[order], iou[order]
    right = np.cumsum(found)
    wrong = np.cumsum(~found)
    inexact = np.cumsum(np.where(found, 1 - iou, 0))
    error = (inexact / (1 - tau) + wrong + num_objects - right) / (num_objects + wrong)
    # A threshold keeps or drops equal scores together.
    last = np.append(score[1:] != score[:-1], True)
    best = int(np.where(last, error, np.inf).argmin())
    if error[best] >= 1 or right[best] == 0:
        return nothing
    return Lrp(
        float(error[best]),
        float(inexact[best] / right[best]),
        float(wrong[best] / (right[best] + wrong[best])),
        float(1 - right[best] / num_objects),
        float(score[best]),
    )


def lrp_by_class(matched: Matched) -> list[Lrp]:
    """The oLRP of each class, in the classes' order."""
    rows = []
    for label, num_objects in enumerate(matched.num_objects):
        mine = (matched.label == label) & ~matched.ignored
        rows.append(
            optimal_lrp(
                matched.score[mine],
                matched.found[mine],
                matched.found_iou[mine],
                int(num_objects),
            )
        )
    return rows


def average_precision(score: NDArray, right: NDArray, num_objects: int) -> float:
    """COCO's AP: precision made monotone, read at 101 recalls.

    Args:
        score: (D,).
        right: (D,) bool.
        num_objects: How many there are to be found.

    Returns:
        AP in 0…1; NaN where there is nothing to be found.
    """
    if num_objects == 0:
        return float('nan')
    order = np.argsort(-score, kind='stable')
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / num_objects, RECALLS, side='left')
    inside = at < len(precision)
    return float(precision[at[inside]].sum() / len(RECALLS))
