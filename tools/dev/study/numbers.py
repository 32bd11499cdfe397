"""Numbers of a study: AP by IoU, paired differences, intervals, one row a model."""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

IOUS = tuple(range(50, 100, 5))
METRICS = ('AP', 'AP50', 'AP60', 'AP70', 'AP75', 'AP80', 'AP90')


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

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.half_width is not None and self.mean - self.half_width > 0


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean and Student's t-interval of a sample.

    Args:
        values: At least one value.
        confidence: Coverage of the interval.

    Returns:
        The estimate.

    Raises:
        ValueError: If there is no value, or one is not finite.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(
            f'an interval needs finite values, at least one; got {values.tolist()}'
        )
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, None, 1)
    quantile = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    error = values.std(ddof=1) / math.sqrt(len(values))
    return Estimate(mean, float(quantile * error), len(values))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> Optional[Estimate]:
    """Interval of the difference to the baseline, over the seeds both have.

    Args:
        values: Seed to value.
        baseline: Seed to the baseline's value.

    Returns:
        The estimate; ``None`` where no seed is common.
    """
    common = sorted(set(values) & set(baseline))
    if not common:
        return None
    return t_interval([values[seed] - baseline[seed] for seed in common])


def coco_aps(
    annotations: Union[str, Path], detections: Union[str, Path], max_dets: int = 100
) -> dict[str, float]:
    """COCO's AP as a mean, at every IoU threshold, and of every class.

    Args:
        annotations: Ground truth, a COCO file.
        detections: Detections in COCO's result format, a JSON file.
        max_dets: Detections an image that count.

    Returns:
        ``AP``, ``AP50``, ``AP55``, …, ``AP95`` and ``AP:<class>``, in per cent.
        0 where nothing is detected at all; a class without ground truth is left
        out.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        found = COCO()
        if Path(detections).read_text().strip() != '[]':
            found = truth.loadRes(str(detections))
        evaluation = COCOeval(truth, found, 'bbox')
        # An empty result file has no class list of its own.
        evaluation.params.imgIds = sorted(truth.getImgIds())
        evaluation.params.catIds = sorted(truth.getCatIds())
        evaluation.params.maxDets = [max_dets]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = ['all']
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoUs, recalls, classes, areas, max_dets); -1 where a class has no object.
    precision = evaluation.eval['precision'][:, :, :, 0, 0]
    known = precision.max(axis=(0, 1)) > -1
    precision = 100 * precision[:, :, known]
    aps = {'AP': float(precision.mean())}
    for iou, values in zip(IOUS, precision):
        aps[f'AP{iou}'] = float(values.mean())
    ids = np.array(evaluation.params.catIds)[known]
    for category, values in zip(truth.loadCats(ids), precision.transpose(2, 0, 1)):
        aps[f'AP:{category["name"]}'] = float(values.mean())
    return aps


class Row(NamedTuple):
    """One row of a study's table.

    Attributes:
        name: The row's name.
        seeds: Its seeds.
        values: Metric to the mean over the seeds.
        differences: Metric to the paired difference to the baseline; empty for
            the baseline itself.
        positives: Positives an image of each stage, a mean over the seeds.
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
    """Turn the runs of a table into its rows.

    Args:
        runs: Row name to seed to a run: ``metrics`` (name to per cent) and
            ``positives`` (an image, one a stage).
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
