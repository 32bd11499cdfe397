"""Numbers of a study: AP by IoU threshold, paired differences, intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np
from scipy import stats

from mmdet_consistent.analysis.annotations import AnnotatedSet
from mmdet_consistent.analysis.coco_eval import SIZES, evaluate, read_results
from mmdet_consistent.analysis.matching import pairwise_iou

METRICS = ('AP', 'AP50', 'AP60', 'AP70', 'AP75', 'AP80', 'AP90')
# By size of the object, and of objects that overlap another. Older files lack them.
GROUPS = ('AP_small', 'AP_medium', 'AP_large', 'AP_overlapping')
OVERLAP = 0.3  # IoU with another object, of any class


class Estimate(NamedTuple):
    """A mean over seeds and the half-width of its interval.

    Attributes:
        mean: Mean.
        half_width: Half of the interval's width; ``None`` for a single value.
        count: Number of values.
    """

    mean: float
    half_width: Optional[float]
    count: int


def t_interval(values: Sequence[float]) -> Estimate:
    """Return mean and 95 % t-interval of a sample.

    Args:
        values: At least one value.

    Raises:
        ValueError: If there is no value, or one is not finite.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(
            f'an interval needs at least one value, all finite; got {values.tolist()}'
        )
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, None, 1)
    half_width = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Estimate(mean, float(half_width), len(values))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> Optional[Estimate]:
    """Return the difference to the baseline over common seeds, ``None`` without any.

    Args:
        values: Seed to value.
        baseline: Seed to the baseline's value.
    """
    common = sorted(set(values) & set(baseline))
    if not common:
        return None
    return t_interval([values[seed] - baseline[seed] for seed in common])


def coco_aps(
    annotations: Union[str, Path],
    detections: Union[str, Path],
    classes: Optional[Sequence[str]] = None,
) -> dict[str, float]:
    """Return COCO's AP: the mean, by IoU threshold, by class and by group of objects.

    Args:
        annotations: Ground truth, a COCO file.
        detections: Detections in COCO's result format, a JSON file.
        classes: Classes to evaluate; default: those of the file.

    Returns:
        ``AP``, ``AP50``, ``AP55``, …, ``AP95``, ``AP:<class>`` and those of ``GROUPS``,
        in per cent. All are 0 if nothing is detected; a class or group without ground
        truth is left out.
    """
    truth = AnnotatedSet.from_file(Path(annotations), classes=classes)
    table = read_results(Path(detections), truth)
    result = evaluate(table, truth, sorted(truth.images))
    # Threshold by class, of objects of all sizes.
    ap = 100 * result.ap[:, :, 0]
    known = ~np.isnan(ap).all(axis=0)
    aps = {'AP': float(ap[:, known].mean())}
    for iou, values in zip(result.iou_thrs, ap[:, known]):
        aps[f'AP{100 * iou:.0f}'] = float(values.mean())
    for label in np.flatnonzero(known):
        aps[f'AP:{truth.classes[label]}'] = float(ap[:, label].mean())
    others = AnnotatedSet(without_separate_objects(truth), truth.classes)
    crowded = evaluate(table, others, sorted(truth.images))
    groups = [result.mean(size=size) for size in SIZES[1:]] + [crowded.mean()]
    named = zip(GROUPS, groups)
    aps.update({name: 100 * value for name, value in named if not np.isnan(value)})
    return aps


def without_separate_objects(truth: AnnotatedSet) -> dict:
    """Return the annotations with only overlapping objects to be found, in COCO form.

    Objects whose IoU with every other one is at most ``OVERLAP`` become crowd regions,
    which count neither as found nor as missed.
    """
    coco = truth.to_coco(sorted(truth.images))
    by_image: dict = {}
    for item in coco['annotations']:
        by_image.setdefault(item['image_id'], []).append(item)
    for items in by_image.values():
        boxes = np.array([item['bbox'] for item in items], float)
        boxes[:, 2:] += boxes[:, :2]
        iou = pairwise_iou(boxes, boxes)
        np.fill_diagonal(iou, 0)
        for item, largest in zip(items, iou.max(axis=1)):
            item['iscrowd'] = int(item.get('iscrowd', 0) or largest <= OVERLAP)
    return coco


class Row(NamedTuple):
    """One row of a study's table.

    Attributes:
        name: Name of the row.
        seeds: Seeds of its runs.
        values: Metric to the mean over the seeds.
        differences: Metric to the paired difference to the baseline; empty for
            the baseline itself.
        positives: Positives per image of each stage, means over the seeds.
        paper: The paper's figures, by metric.
    """

    name: str
    seeds: tuple[int, ...]
    values: dict[str, Estimate]
    differences: dict[str, Estimate]
    positives: tuple[float, ...]
    paper: dict[str, float]


def summarise(
    runs: Mapping[str, Mapping[int, dict]],
    baseline: str,
    paper: Optional[Mapping[str, Mapping[str, float]]] = None,
) -> list[Row]:
    """Summarise the runs of a table as its rows.

    Args:
        runs: Row name to seed to a run: ``metrics`` (name to per cent) and
            ``positives`` (per image, one per stage).
        baseline: Name of the row that the others are compared with.
        paper: Row name to the paper's figures.

    Returns:
        The rows, in the order of ``runs``.
    """
    rows = []
    for name, by_seed in runs.items():
        metrics = {
            metric: {seed: run['metrics'][metric] for seed, run in by_seed.items()}
            for metric in next(iter(by_seed.values()))['metrics']
        }
        differences = {}
        if name != baseline and baseline in runs:
            for metric, values in metrics.items():
                others = {s: r['metrics'][metric] for s, r in runs[baseline].items()}
                estimate = paired_difference(values, others)
                if estimate is not None:
                    differences[metric] = estimate
        rows.append(
            Row(
                name=name,
                seeds=tuple(sorted(by_seed)),
                values={m: t_interval(list(v.values())) for m, v in metrics.items()},
                differences=differences,
                positives=tuple(
                    float(np.mean(stage))
                    for stage in zip(*(run['positives'] for run in by_seed.values()))
                ),
                paper=dict((paper or {}).get(name, {})),
            )
        )
    return rows
