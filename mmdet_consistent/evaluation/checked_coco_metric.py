"""COCO AP on the annotations that the checked data sets see."""

from collections.abc import Sequence
from typing import Any, Optional

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from ..datasets.check_coco import check_coco_set, coco_api
from ..datasets.problems import DataError, check_classes
from ..engine.class_names import dataset_names


@METRICS.register_module()
class CheckedCocoMetric(CocoMetric):
    """:class:`mmdet.evaluation.CocoMetric` that reads its file as the data set does.

    mmdet's metric reads the raw file: an object whose id is 0 never counts as found,
    ``iscrowd='0'`` makes a crowd, and a missing ``iscrowd`` or ``area`` ends the run
    after the first epoch. On a file without problems the results are mmdet's.

    Args:
        ann_file: COCO annotation file; None to evaluate against the samples.
        **kwargs: Arguments of ``CocoMetric``.

    Raises:
        DataError: If the file can't be used, or its categories are in another order
            than the classes; and at the end if an image was evaluated twice.
    """

    def __init__(self, ann_file: Optional[str] = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._names: Optional[list[str]] = None
        self._ann_file = ann_file
        if ann_file is None:
            return
        content, _, _ = check_coco_set(
            ann_file, backend_args=self.backend_args, evaluation=True
        )
        if kwargs.get('sort_categories'):
            content['categories'].sort(key=lambda category: category['id'])
        self._names = [category['name'] for category in content['categories']]
        self._coco_api = coco_api(content)

    @property
    def dataset_meta(self) -> Optional[dict]:
        """Meta information of the data set."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, value: Any) -> None:
        self._dataset_meta = common_meta(value)
        if self._names is not None:
            classes = self._dataset_meta['classes']
            found = check_classes(self._names, classes, every=True)
            if found is not None:
                raise DataError(f'{self._ann_file}: categories: {found[0]}: {found[1]}')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics over all images, each of which counts once."""
        seen: set = set()
        for truth, _ in results:
            if truth['img_id'] in seen:
                raise DataError(
                    f'image {truth["img_id"]!r} was evaluated twice: the joined data '
                    f'sets share image ids, or a wrapper repeats images; evaluate one '
                    f'set on its own with ann_file={self._ann_file!r}'
                )
            seen.add(truth['img_id'])
        return super().compute_metrics(results)


def common_meta(value: Any) -> dict:
    """Return the meta information of a data set, joined or not.

    mmdet's ``ConcatDataset`` has a list of them if they differ, in a palette perhaps.

    Raises:
        DataError: If the joined data sets have other classes.
    """
    if not isinstance(value, Sequence):
        return value
    classes = {tuple(dataset_names(meta)) for meta in value}
    if len(classes) > 1:
        raise DataError(f'the joined data sets have other classes: {sorted(classes)}')
    return value[0]
