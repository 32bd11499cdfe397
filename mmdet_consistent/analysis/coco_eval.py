"""COCO evaluation, by faster-coco-eval where it is installed, else pycocotools."""

import contextlib
import importlib.util
import io
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from .collect import CORNERS, Table
from .ground_truth import GroundTruth
from .matching import by_image, pairwise_iou

BACKENDS = ('faster_coco_eval', 'pycocotools')
SIZES = ('all', 'small', 'medium', 'large')


class CocoResult(NamedTuple):
    """AP and AR of one detector; T IoU thresholds, C classes, 4 sizes.

    NaN where there is nothing to be found.

    Attributes:
        iou_thrs: (T,) 0.5 … 0.95.
        ap: (T, C, 4) average precision in 0…1, sizes as in ``SIZES``.
        recall: (T, C, 4) highest recall with 100 detections an image.
    """

    iou_thrs: NDArray
    ap: NDArray
    recall: NDArray

    def mean(self, iou: Optional[float] = None, size: str = 'all') -> float:
        """AP over the classes: at one IoU threshold, or over all of them."""
        values = self.ap[:, :, SIZES.index(size)]
        if iou is not None:
            values = values[np.isclose(self.iou_thrs, iou)]
        return nanmean(values)


def nanmean(values: NDArray) -> float:
    """Mean of what isn't NaN; NaN, and no warning, of nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float('nan')


def backend_in_use() -> str:
    """The evaluation library that :func:`evaluate` takes by itself."""
    found = importlib.util.find_spec(BACKENDS[0]) is not None
    return BACKENDS[0] if found else BACKENDS[1]


def evaluate(
    detections: Table,
    truth: GroundTruth,
    image_ids: list,
    backend: Optional[str] = None,
) -> CocoResult:
    """Evaluate detections as COCO does.

    Args:
        detections: Rows with image_id, label, score, x1, y1, x2, y2.
        truth: The ground truth.
        image_ids: The images that were looked at.
        backend: One of ``BACKENDS``; default: the faster one that is there.

    Raises:
        ValueError: If the backend is unknown.
    """
    backend = backend or backend_in_use()
    if backend == 'faster_coco_eval':
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    elif backend == 'pycocotools':
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        raise ValueError(f'backend must be one of {BACKENDS}, got {backend!r}')

    ids = set(image_ids)
    keep = np.array([i in ids for i in detections['image_id'].tolist()], dtype=bool)
    corners = np.stack([detections[name][keep] for name in CORNERS], axis=1)
    # Single precision, as mmdet's CocoMetric subtracts: the very same numbers.
    corners[:, 2:] -= corners[:, :2]
    cat_ids = np.array(truth.cat_ids)[detections['label'][keep]].tolist()
    rows = zip(
        detections['image_id'][keep].tolist(),
        cat_ids,
        corners.tolist(),
        detections['score'][keep].tolist(),
    )
    names = ('image_id', 'category_id', 'bbox', 'score')
    results = [dict(zip(names, row)) for row in rows]
    shape = (10, len(truth.cat_ids), len(SIZES))
    if not results:
        return _nothing(truth, image_ids, shape)
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries chatter
        ground = COCO()
        ground.dataset = truth.to_coco(image_ids)
        ground.createIndex()
        evaluation = COCOeval(ground, ground.loadRes(results), 'bbox')
        evaluation.params.imgIds = list(image_ids)
        evaluation.params.catIds = list(truth.cat_ids)
        evaluation.params.maxDets = [1, 10, 100]
        evaluation.evaluate()
        evaluation.accumulate()
    # COCOeval sorts the category ids; the rows here are in the classes' order.
    order = np.argsort(np.argsort(truth.cat_ids))
    precision = np.asarray(evaluation.eval['precision'])[..., -1][:, :, order]
    recall = np.asarray(evaluation.eval['recall'])[..., -1][:, order]
    precision = np.where(precision < 0, np.nan, precision)
    return CocoResult(
        np.asarray(evaluation.params.iouThrs),
        precision.mean(axis=1),
        np.where(recall < 0, np.nan, recall),
    )


def _nothing(truth: GroundTruth, image_ids: list, shape: tuple) -> CocoResult:
    """The result of no detection: 0 where there are objects, else NaN."""
    ap = np.full(shape, np.nan)
    limits = np.array([0, 32**2, 96**2, 1e10])
    for annotation in truth.to_coco(image_ids)['annotations']:
        if not annotation['iscrowd']:
            label = truth.label_of[annotation['category_id']]
            size = 1 + int(np.searchsorted(limits[1:3], annotation['area']))
            ap[:, label, [0, size]] = 0
    return CocoResult(np.linspace(0.5, 0.95, 10), ap, ap.copy())


def with_perfect_boxes(
    detections: Table, truth: GroundTruth, least_iou: float = 0.1
) -> Table:
    """Each detection moved onto the nearest object of its class.

    Scores stay, so what remains to be won is in the boxes. A detection that
    overlaps no object by ``least_iou`` stays where it is.
    """
    boxes = np.stack([detections[name] for name in CORNERS], axis=1).copy()
    for image_id, in_image in by_image(detections).items():
        objects = truth.of_image(image_id).countable()
        for label in np.unique(objects.labels):
            rows = in_image[detections['label'][in_image] == label]
            same = objects.boxes[objects.labels == label]
            iou = pairwise_iou(boxes[rows], same)
            if len(rows):
                near = iou.max(axis=1) >= least_iou
                boxes[rows[near]] = same[iou.argmax(axis=1)[near]]
    return {**detections, **{name: boxes[:, i] for i, name in enumerate(CORNERS)}}


def with_iou_as_score(detections: Table, iou: NDArray) -> Table:
    """The same boxes, ranked by their true IoU."""
    return {**detections, 'score': iou.astype(np.float32)}
