"""Measures of the agreement between score and localisation, on plain arrays."""

from typing import Any, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from .matching import MATCH_IOU, Matched

RECALLS = np.linspace(0, 1, 101)
NAN = float('nan')


class Binned(NamedTuple):
    """Mean and spread of y for x in bins (B bins).

    Attributes:
        centers: (B,) middle of each bin.
        mean: (B,) mean of y, NaN in an empty bin.
        std: (B,) standard deviation of y (of the population, not of a sample).
        weight: (B,) total weight in the bin.
    """

    centers: NDArray
    mean: NDArray
    std: NDArray
    weight: NDArray


def binned(
    x: NDArray, y: NDArray, weight: Optional[NDArray] = None, num_bins: int = 20
) -> Binned:
    """Compute the mean and standard deviation of y over equal bins of x.

    Args:
        x: (N,) in 0…1.
        y: (N,).
        weight: (N,), the number of values that each stands for; default: one.
        num_bins: Number of bins.
    """
    weight = np.ones(len(x)) if weight is None else weight.astype(np.float64)
    index = bin_index(x, num_bins)
    total = np.bincount(index, weight, num_bins)
    with np.errstate(invalid='ignore', divide='ignore'):
        mean = np.bincount(index, weight * y, num_bins) / total
        # Two passes: the difference of large sums would lose a small spread.
        square = np.bincount(index, weight * (y - mean[index]) ** 2, num_bins)
        std = np.sqrt(square / total)
    return Binned((np.arange(num_bins) + 0.5) / num_bins, mean, std, total)


def bin_index(x: NDArray, num_bins: int) -> NDArray:
    """Return the bin of each x in 0…1. On an edge the upper one, and for 1 the last."""
    # A millionth up: an IoU of 0.6, computed in single precision, is often less.
    index = np.floor((np.asarray(x, dtype=np.float64) + 1e-6) * num_bins)
    return np.clip(index.astype(np.int64), 0, num_bins - 1)


def nanmean(values: Any) -> float:
    """Return the mean of the values of an array that are not NaN, else NaN."""
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if len(known) else NAN


def spearman(x: NDArray, y: NDArray) -> float:
    """Return Spearman's rank correlation of x (N,) and y (N,).

    Returns:
        The correlation, or NaN for fewer than two values or constant ones.

    Raises:
        ImportError: If scipy is missing.
    """
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return NAN
    try:
        from scipy.stats import spearmanr  # slow to import, and seldom needed
    except ImportError as error:
        raise ImportError(
            "rank correlation needs scipy: pip install 'mmdet_consistent[analysis]'"
        ) from error
    return float(spearmanr(x, y)[0])


def reliability(matched: Matched, num_bins: int = 10) -> tuple[Binned, Binned, Binned]:
    """Compute the reliability diagram of detections, over bins of the score.

    Returns:
        Score, precision at IoU 0.5, and IoU (counting 0 for false positives) by score.
    """
    kept = matched.where(~matched.ignored)
    score, precision, quality = (
        binned(kept.score, y, num_bins=num_bins)
        for y in (kept.score, kept.found, kept.found_iou)
    )
    return score, precision, quality


def laece(matched: Matched, num_bins: int = 25) -> float:
    """Compute the localisation-aware expected calibration error (0 is best).

    Per class, the mean of |score - precision · IoU| over bins of the score, weighted
    by their detections, where IoU is the mean over true positives (IoU ≥ 0.5); then
    the mean over the classes that have detections (Oksuz et al., CVPR 2023).
    """
    errors = []
    for label in np.unique(matched.label[~matched.ignored]):
        # Precision · IoU of true positives is the IoU with 0 for false positives.
        score, _, quality = reliability(matched.of_class(label), num_bins)
        gap = np.abs(score.mean - quality.mean)
        errors.append(np.nansum(gap * score.weight) / score.weight.sum())
    return nanmean(errors)


class Lrp(NamedTuple):
    """Optimal localisation-recall-precision error (0 is best, 1 is worst).

    Attributes:
        lrp: The error at the best score threshold.
        localisation: Mean of 1 - IoU over the true positives at that threshold.
        false_positive: 1 - precision at that threshold.
        false_negative: 1 - recall at that threshold.
        threshold: The score threshold.
    """

    lrp: float
    localisation: float
    false_positive: float
    false_negative: float
    threshold: float


def optimal_lrp(score: NDArray, found: NDArray, iou: NDArray, num_objects: int) -> Lrp:
    """Compute the oLRP of one class (Oksuz et al., ECCV 2018; TPAMI 2021).

    It is the least of LRP(s) over all score thresholds s, where, with τ = 0.5,
    LRP(s) = (Σ over true positives of (1 - IoU) / (1 - τ) + FP + FN) / (TP + FP + FN).

    Args:
        score: (D,) scores of the class's detections.
        found: (D,) bool, true positive at IoU τ.
        iou: (D,) IoU with the object found.
        num_objects: Number of objects of the class.

    Returns:
        The error and its parts, all NaN for a class without objects.
    """
    if num_objects == 0:
        return Lrp(*[NAN] * 5)
    order = np.argsort(-score, kind='stable')
    score, found, iou = score[order], found[order], iou[order]
    right, wrong = np.cumsum(found), np.cumsum(~found)
    inexact = np.cumsum(np.where(found, 1 - iou, 0))
    missed = num_objects - right
    error = (inexact / (1 - MATCH_IOU) + wrong + missed) / (num_objects + wrong)
    # A threshold keeps or drops equal scores together.
    error[:-1][score[1:] == score[:-1]] = np.inf
    best = int(error.argmin()) if len(error) else -1
    if best < 0 or error[best] >= 1:
        return Lrp(1.0, NAN, NAN, 1.0, NAN)
    parts = (
        error[best],
        inexact[best] / right[best],
        wrong[best] / (right[best] + wrong[best]),
        missed[best] / num_objects,
        score[best],
    )
    return Lrp(*map(float, parts))


def lrp_by_class(matched: Matched) -> list[Lrp]:
    """Return the oLRP of each class, in the order of the classes."""
    rows = []
    for label, num_objects in enumerate(matched.num_objects.tolist()):
        own = matched.of_class(label)
        rows.append(optimal_lrp(own.score, own.found, own.found_iou, num_objects))
    return rows


def average_precision(score: NDArray, right: NDArray, num_objects: int) -> float:
    """Compute COCO's AP: monotone precision, read at 101 recalls.

    Args:
        score: (D,).
        right: (D,) bool, true positive.
        num_objects: Number of objects to be found.

    Returns:
        AP in 0…1, NaN without objects.
    """
    if num_objects == 0:
        return NAN
    hits = np.cumsum(right[np.argsort(-score, kind='stable')])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / num_objects, RECALLS, side='left')
    return float(precision[at[at < len(precision)]].sum() / len(RECALLS))
