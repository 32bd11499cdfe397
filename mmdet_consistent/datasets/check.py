"""Check the data sets that a config names, or have them checked in a run."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.datasets import CocoDataset, VOCDataset, XMLDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.logging import print_log

from ..utils.configs import plain_datasets, resolve
from .check_coco import check_coco_set
from .check_image import MAX_PIXELS, Loading
from .check_voc import check_voc_set
from .checked import CheckedMixin
from .problems import DataError, Problem

CHECKED = {
    cls: f'Checked{cls.__name__}' for cls in (CocoDataset, VOCDataset, XMLDataset)
}


def check_dataset_config(
    config: dict, images: str = 'full', max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[str, list[Problem], str]]:
    """Check the data of a ``dataset`` field of a config, wrappers included.

    Yields:
        Annotation file, problems and size of each data set.

    Raises:
        DataError: If a file can't be read, or is neither COCO's nor VOC's.
    """
    for fields in plain_datasets(config):
        cls = resolve(DATASETS, fields.get('type')) or object
        # LVIS and panoptic files have an API of their own.
        is_coco = issubclass(cls, CocoDataset) and getattr(cls, 'COCOAPI', 0) is COCO
        if not is_coco and not issubclass(cls, XMLDataset):
            raise DataError(
                f'{fields.get("ann_file")}: a data set of type {fields.get("type")} '
                'has no check; CocoDataset and XMLDataset are all that can be checked'
            )
        # mmdet joins the paths. Of the pipeline, the steps that load images matter.
        steps = [s for s in fields.get('pipeline') or [] if 'color_type' in s]
        dataset = DATASETS.build(dict(fields, lazy_init=True, pipeline=steps))
        path = dataset.ann_file
        common: dict[str, Any] = dict(
            images=images,
            max_pixels=max_pixels,
            backend_args=dataset.backend_args,
            loading=Loading.of(dataset.pipeline.transforms),
            classes=dataset.metainfo.get('classes'),
        )
        if is_coco:
            folder = dataset.data_prefix.get('img', '')
            common['evaluation'] = dataset.test_mode
            _, problems, size = check_coco_set(path, folder, **common)
        else:
            common['img_subdir'] = dataset.img_subdir
            common['ann_subdir'] = dataset.ann_subdir
            root = dataset.sub_data_root
            problems, size = check_voc_set(root, path, **common)
        yield path, problems, size


def use_checked(
    cfg: dict,
    splits: Sequence[str] = ('train', 'val'),
    on_bad_data: str = 'drop',
    check_images: str = 'no',
) -> None:
    """Replace mmdet's data sets and its ``CocoMetric`` by those that check their data.

    Wrappers, names with a scope and classes instead of names are understood. A data
    set of another type is named in the log, and stays.

    Args:
        cfg: The config; changed in place.
        splits: Splits to check, such as ``val``.
        on_bad_data: See :class:`CheckedMixin`.
        check_images: See there.
    """
    for split in splits:
        field = f'{split}_dataloader'
        for dataset in plain_datasets((cfg.get(field) or {}).get('dataset')):
            cls = resolve(DATASETS, dataset.get('type'))
            if cls in CHECKED:
                _replace(dataset, CHECKED[cls])
                dataset.update(on_bad_data=on_bad_data, check_images=check_images)
            elif cls is None or not issubclass(cls, CheckedMixin):
                name = getattr(cls, '__name__', dataset.get('type'))
                text = (
                    f'{field}: the data of a {name} are not checked; '
                    'docs/reliability.md says how to check your own'
                )
                print_log(text, 'current', logging.WARNING)
        metrics = cfg.get(f'{split}_evaluator') or []
        for metric in [metrics] if isinstance(metrics, dict) else metrics:
            kind = metric.get('type') if isinstance(metric, dict) else None
            if kind and resolve(METRICS, kind) is CocoMetric:
                _replace(metric, 'CheckedCocoMetric')


def _replace(config: dict, name: str) -> None:
    """Set the type, with mmdet's scope unless the config relies on its default."""
    kind = config['type']
    is_plain = isinstance(kind, str) and '.' not in kind
    config['type'] = name if is_plain else f'mmdet.{name}'
