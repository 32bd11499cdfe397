"""How well a detector's scores say where its boxes lie."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmdet.structures.bbox import get_box_tensor
from mmengine.evaluator import BaseMetric


@METRICS.register_module()
class ConsistencyMetric(BaseMetric):
    """Rank correlation and calibration of scores, beside the AP.

    * ``rank_correlation``: Spearman's, of score and IoU, among the detections
      that overlap an object of their class by 0.5 or more; 1 is best;
    * ``rank_correlation_all``: the same among all detections;
    * ``laece``: localisation-aware expected calibration error; 0 is best;
    * ``olrp``: optimal localisation-recall-precision error, 0 is best, 1 worst.

    Use it next to the metric that gives the AP; the test pipeline must load the
    annotations, after any resizing, as mmdet's own do::

        val_evaluator = [val_evaluator, dict(type='ConsistencyMetric')]

    Args:
        **kwargs: ``BaseMetric``'s own: ``collect_device``, ``prefix``.
    """

    default_prefix = 'consistency'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the detections and the ground truth of some images.

        Args:
            data_batch: Unused.
            data_samples: ``pred_instances`` and ``gt_instances`` of each image,
                in pixels of the original image.
        """
        for sample in data_samples:
            if 'gt_instances' not in sample:
                raise ValueError(
                    'ConsistencyMetric needs gt_instances in every sample: put '
                    "dict(type='LoadAnnotations', with_bbox=True) into the pipeline "
                    'of the val or test dataset, after Resize'
                )
            found, truth = sample['pred_instances'], sample['gt_instances']
            ignored = sample.get('ignored_instances', {})
            self.results.append(
                dict(
                    boxes=_array(found['bboxes']),
                    scores=_array(found['scores']),
                    labels=_array(found['labels']),
                    gt_boxes=_array(truth['bboxes']),
                    gt_labels=_array(truth['labels']),
                    crowd_boxes=_array(ignored.get('bboxes', np.zeros((0, 4)))),
                    crowd_labels=_array(ignored.get('labels', np.zeros(0))),
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """The values over all images.

        Args:
            results: What :meth:`process` kept, of all ranks.
        """
        # Only here: a training that doesn't use the metric shouldn't wait for
        # the analysis to be imported.
        from ..analysis import measures
        from ..analysis.annotations import AnnotatedSet
        from ..analysis.columns import concatenate, corner_columns
        from ..analysis.matching import match_detections

        num_classes = len(self.dataset_meta['classes'])
        coco: dict[str, list] = dict(
            images=[dict(id=i) for i in range(len(results))],
            annotations=[],
            categories=[dict(id=i, name=str(i)) for i in range(num_classes)],
        )
        tables = []
        for image_id, result in enumerate(results):
            boxes = result['boxes'].reshape(-1, 4)
            tables.append(
                dict(
                    image_id=np.full(len(boxes), image_id),
                    label=result['labels'],
                    score=result['scores'],
                    **corner_columns(boxes),
                )
            )
            for kind in ('gt', 'crowd'):
                pairs = zip(result[f'{kind}_boxes'], result[f'{kind}_labels'])
                for (x1, y1, x2, y2), label in pairs:
                    coco['annotations'].append(
                        dict(
                            image_id=image_id,
                            category_id=int(label),
                            bbox=[x1, y1, x2 - x1, y2 - y1],
                            iscrowd=int(kind == 'crowd'),
                        )
                    )
        truth = AnnotatedSet(coco, classes=[str(i) for i in range(num_classes)])
        matched = match_detections(concatenate(tables), truth, list(truth.images))
        good = matched.iou >= 0.5
        olrp = np.array([row.lrp for row in measures.lrp_by_class(matched)])
        return dict(
            rank_correlation=measures.spearman(matched.score[good], matched.iou[good]),
            rank_correlation_all=measures.spearman(matched.score, matched.iou),
            laece=measures.laece(matched),
            olrp=float(np.nanmean(olrp)) if not np.isnan(olrp).all() else float('nan'),
        )


def _array(value: Any) -> np.ndarray:
    """Tensors, and mmdet's box types, as arrays."""
    value = get_box_tensor(value) if not isinstance(value, np.ndarray) else value
    return value if isinstance(value, np.ndarray) else value.cpu().numpy()
