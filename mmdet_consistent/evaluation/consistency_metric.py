"""Agreement of a detector's scores with the positions of its boxes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmdet.structures.bbox import get_box_tensor
from mmengine.evaluator import BaseMetric

NOTHING = dict(bboxes=np.zeros((0, 4)), labels=np.zeros(0))


@METRICS.register_module()
class ConsistencyMetric(BaseMetric):
    """Rank correlation and calibration of scores, beside the AP.

    * ``rank_correlation``: Spearman's correlation of score and IoU, among the
      detections that overlap an object of their class by at least 0.5; 1 is best;
    * ``rank_correlation_all``: the same among all detections;
    * ``laece``: localisation-aware expected calibration error; 0 is best;
    * ``olrp``: optimal localisation-recall-precision error; 0 is best, 1 worst.

    Use it with the metric that gives the AP. The test pipeline must load the
    annotations after resizing, as those of mmdet do::

        val_evaluator = [val_evaluator, dict(type='ConsistencyMetric')]

    Args:
        **kwargs: Arguments of ``BaseMetric``: ``collect_device``, ``prefix``.
    """

    default_prefix = 'consistency'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the detections and the ground truth of a batch.

        Args:
            data_batch: Unused.
            data_samples: ``pred_instances`` and ``gt_instances`` of each image,
                in pixels of the original image.

        Raises:
            ValueError: If a sample has no ground truth.
        """
        for sample in data_samples:
            if 'gt_instances' not in sample:
                raise ValueError(
                    'ConsistencyMetric needs gt_instances in every sample: put '
                    "dict(type='LoadAnnotations', with_bbox=True) into the pipeline "
                    'of the val or test dataset, after Resize'
                )
            found = sample['pred_instances']
            result = {
                name: _array(found[name]) for name in ('bboxes', 'scores', 'labels')
            }
            for kind in ('gt', 'ignored'):
                instances = sample.get(f'{kind}_instances') or NOTHING
                for name in NOTHING:
                    result[f'{kind}_{name}'] = _array(instances[name])
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the values over all images.

        Args:
            results: Everything that :meth:`process` kept, of all ranks.
        """
        # Imported where it is used: a training without this metric needs no analysis.
        from ..analysis import measures
        from ..analysis.annotations import AnnotatedSet
        from ..analysis.columns import concatenate, corner_columns
        from ..analysis.matching import match_detections

        classes = [str(i) for i in range(len(self.dataset_meta['classes']))]
        coco = dict(
            images=[dict(id=i) for i in range(len(results))],
            annotations=list(_annotations(results)),
            categories=[dict(id=i, name=name) for i, name in enumerate(classes)],
        )
        detections = concatenate(
            [
                dict(
                    image_id=np.full(len(result['scores']), image_id),
                    label=result['labels'],
                    score=result['scores'],
                    **corner_columns(result['bboxes'].reshape(-1, 4)),
                )
                for image_id, result in enumerate(results)
            ]
        )
        truth = AnnotatedSet(coco, classes=classes)
        matched = match_detections(detections, truth, list(truth.images))
        good = matched.iou >= 0.5
        olrp = np.array([row.lrp for row in measures.lrp_by_class(matched)])
        return dict(
            rank_correlation=measures.spearman(matched.score[good], matched.iou[good]),
            rank_correlation_all=measures.spearman(matched.score, matched.iou),
            laece=measures.laece(matched),
            olrp=float(np.nanmean(olrp)) if not np.isnan(olrp).all() else float('nan'),
        )


def _annotations(results: list[dict]) -> Iterator[dict]:
    """Yield the ground truth as COCO annotations."""
    for image_id, result in enumerate(results):
        for is_crowd, kind in enumerate(('gt', 'ignored')):
            pairs = zip(result[f'{kind}_bboxes'], result[f'{kind}_labels'])
            for (x1, y1, x2, y2), label in pairs:
                yield dict(
                    image_id=image_id,
                    category_id=int(label),
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    iscrowd=is_crowd,
                )


def _array(value: Any) -> np.ndarray:
    """Convert a tensor or one of mmdet's box types to an array."""
    if isinstance(value, np.ndarray):
        return value
    return get_box_tensor(value).cpu().numpy()
