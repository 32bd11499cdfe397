"""COCO evaluation by faster-coco-eval if it is installed, else by pycocotools."""

import contextlib
import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from ..utils import atomic
from .annotations import AnnotatedSet
from .columns import Table, boxes_of, corner_columns, rows_by_image, select_images
from .matching import pairwise_iou
from .measures import nanmean

BACKENDS = ('faster_coco_eval', 'pycocotools')
SIZES = ('all', 'small', 'medium', 'large')
RESULT_KEYS = ('image_id', 'category_id', 'bbox', 'score')


class CocoResult(NamedTuple):
    """AP and recall of one detector (T IoU thresholds, C classes, 4 sizes).

    Attributes:
        iou_thrs: (T,) 0.50, 0.55, …, 0.95.
        ap: (T, C, 4) average precision in 0…1, sizes as in ``SIZES``; NaN for a class
            or size without objects.
        recall: (T, C, 4) highest recall with 100 detections per image and class.
        precision50: (101, C) precision at IoU 0.50 and recall 0, 0.01, …, 1 for all
            sizes; 0 at a recall that is not reached. Its mean is the AP50.
    """

    iou_thrs: NDArray
    ap: NDArray
    recall: NDArray
    precision50: NDArray

    def mean(self, iou: Optional[float] = None, size: str = 'all') -> float:
        """Return the mean AP over the classes, at one IoU threshold or over all."""
        values = self.ap[:, :, SIZES.index(size)]
        if iou is not None:
            values = values[np.isclose(self.iou_thrs, iou)]
        return nanmean(values)


def default_backend() -> str:
    """Return the evaluation library that :func:`evaluate` chooses."""
    return BACKENDS[0] if importlib.util.find_spec(BACKENDS[0]) else BACKENDS[1]


def evaluate(
    detections: Table,
    truth: AnnotatedSet,
    image_ids: Sequence,
    backend: Optional[str] = None,
) -> CocoResult:
    """Evaluate detections as COCO does.

    Args:
        detections: Table of detections; those in other images don't count.
        truth: The annotations.
        image_ids: Images to evaluate.
        backend: One of ``BACKENDS``; default: the faster one that is installed.

    Raises:
        ValueError: If the backend is unknown.
    """
    backend = backend or default_backend()
    if backend == 'faster_coco_eval':
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    elif backend == 'pycocotools':
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        raise ValueError(f'backend must be one of {BACKENDS}, got {backend!r}')
    results = to_results(select_images(detections, image_ids), truth)
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries print a lot
        ground = COCO()
        ground.dataset = truth.to_coco(image_ids)
        ground.createIndex()
        found = ground.loadRes(results) if results else COCO()
        evaluation = COCOeval(ground, found, 'bbox')
        evaluation.params.imgIds = list(image_ids)
        evaluation.params.catIds = list(truth.cat_ids)
        evaluation.params.maxDets = [1, 10, 100]
        evaluation.evaluate()
        evaluation.accumulate()
    # COCOeval sorts the category ids; the result is in the order of the classes.
    order = np.argsort(np.argsort(truth.cat_ids))
    precision, recall = (
        np.asarray(evaluation.eval[name])[..., -1][..., order, :]
        for name in ('precision', 'recall')
    )
    precision = np.where(precision < 0, np.nan, precision)
    return CocoResult(
        np.asarray(evaluation.params.iouThrs),
        precision.mean(axis=1),
        np.where(recall < 0, np.nan, recall),
        precision[0, ..., 0],
    )


def to_results(detections: Table, truth: AnnotatedSet) -> list[dict]:
    """Return detections in COCO's result format."""
    boxes = boxes_of(detections)
    # In single precision, as mmdet's CocoMetric: for the very same AP.
    boxes[:, 2:] -= boxes[:, :2]
    cat_ids = np.array(truth.cat_ids)[detections['label']]
    columns = (detections['image_id'], cat_ids, boxes, detections['score'])
    rows = zip(*(column.tolist() for column in columns))
    return [dict(zip(RESULT_KEYS, row)) for row in rows]


def write_results(path: Path, detections: Table, truth: AnnotatedSet) -> None:
    """Write detections as a COCO result file."""
    rows = to_results(detections, truth)
    ids = {number: image_id for image_id, number in truth.number_of.items()}
    rows = [dict(row, image_id=ids[row['image_id']]) for row in rows]
    atomic.write(path, json.dumps(rows).encode())


def read_results(path: Path, truth: AnnotatedSet) -> Table:
    """Read the detections of a COCO result file; those of other classes are skipped.

    Raises:
        ValueError: If the file is no COCO result file for these annotations.
    """
    try:
        results = json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is not a readable result file: {error}') from error
    if not isinstance(results, list) or not all(
        set(RESULT_KEYS) <= set(result) for result in results
    ):
        raise ValueError(
            f'{path} is not a COCO result file: a list of objects with {RESULT_KEYS}'
        )
    unknown = {result['image_id'] for result in results} - set(truth.number_of)
    if unknown:
        image_id = unknown.pop()
        raise ValueError(f'{path}: image_id {image_id!r} is not in the annotations')
    results = [r for r in results if r['category_id'] in truth.label_of]
    boxes = np.array([r['bbox'] for r in results], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return dict(
        image_id=np.array([truth.number_of[r['image_id']] for r in results], np.int64),
        label=np.array([truth.label_of[r['category_id']] for r in results], np.int32),
        score=np.array([r['score'] for r in results], dtype=np.float32),
        **corner_columns(boxes),
    )


def with_perfect_boxes(
    detections: Table, truth: AnnotatedSet, min_iou: float = 0.1
) -> Table:
    """Move each detection onto the nearest object of its class, scores unchanged.

    A detection that overlaps no object by ``min_iou`` stays where it is. The gain in
    AP is what better boxes alone could bring.
    """
    boxes = boxes_of(detections)
    for image_id, in_image in rows_by_image(detections).items():
        objects = truth.of_image(image_id).countable()
        for label in np.unique(objects.labels):
            rows = in_image[detections['label'][in_image] == label]
            same = objects.boxes[objects.labels == label]
            iou = pairwise_iou(boxes[rows], same)
            near = iou.max(axis=1) >= min_iou
            boxes[rows[near]] = same[iou.argmax(axis=1)[near]]
    return {**detections, **corner_columns(boxes)}
