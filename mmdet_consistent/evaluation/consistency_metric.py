"""Agreement of a detector's scores with the positions of its boxes."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import METRICS
from mmdet.structures.bbox import get_box_tensor
from mmengine.evaluator import BaseMetric
from mmengine.structures import InstanceData

from .checked_coco_metric import common_meta

NOTHING = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))


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
        # Imported where it is used: a training without this metric needs no analysis.
        from ..analysis.collect import detection_rows

        for sample in data_samples:
            if 'gt_instances' not in sample:
                raise ValueError(
                    'ConsistencyMetric needs gt_instances in every sample: put '
                    "dict(type='LoadAnnotations', with_bbox=True) into the pipeline "
                    'of the val or test dataset, after Resize'
                )
            truth = []
            for is_crowd, kind in enumerate(('gt_instances', 'ignored_instances')):
                objects = sample.get(kind) or NOTHING
                boxes = get_box_tensor(objects['bboxes']).tolist()
                for (x1, y1, x2, y2), label in zip(boxes, objects['labels'].tolist()):
                    box = [x1, y1, x2 - x1, y2 - y1]
                    truth.append(dict(category_id=label, bbox=box, iscrowd=is_crowd))
            found = detection_rows(0, InstanceData(**sample['pred_instances']))
            self.results.append((found, truth))

    def compute_metrics(self, results: list[tuple[dict, list]]) -> dict[str, float]:
        """Compute the values over all images.

        Args:
            results: Everything that :meth:`process` kept, of all ranks.
        """
        from ..analysis import measures
        from ..analysis.annotations import AnnotatedSet
        from ..analysis.columns import concatenate
        from ..analysis.matching import match_detections

        meta = common_meta(self.dataset_meta)
        classes = [str(i) for i in range(len(meta['classes']))]
        tables, annotations = [], []
        for image_id, (found, truth) in enumerate(results):
            tables.append(dict(found, image_id=found['image_id'] + image_id))
            annotations += [dict(entry, image_id=image_id) for entry in truth]
        coco = dict(
            images=[dict(id=i) for i in range(len(results))],
            annotations=annotations,
            categories=[dict(id=i, name=name) for i, name in enumerate(classes)],
        )
        matched = match_detections(
            concatenate(tables), AnnotatedSet(coco, classes), range(len(results))
        )
        good = matched.iou >= 0.5
        return dict(
            rank_correlation=measures.spearman(matched.score[good], matched.iou[good]),
            rank_correlation_all=measures.spearman(matched.score, matched.iou),
            laece=measures.laece(matched),
            olrp=measures.nanmean([row.lrp for row in measures.lrp_by_class(matched)]),
        )
