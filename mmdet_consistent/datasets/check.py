"""Check the data sets that a config names."""

import os
from collections.abc import Iterator

from mmdet.registry import DATASETS

from ..utils.configs import plain_datasets
from .check_coco import check_coco_set
from .check_image import MAX_PIXELS
from .check_voc import check_voc_set
from .problems import DataError, Problem


def check_dataset_config(
    config: dict, images: str = 'full', max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[str, list[Problem], str]]:
    """Check the data of a ``dataset`` field of a config, wrappers included.

    Yields:
        Annotation file, problems and size of each data set.

    Raises:
        DataError: If a file can't be read, or is neither COCO's nor VOC's.
    """
    for dataset in plain_datasets(config):
        root = dataset.get('data_root') or ''
        prefix = dataset.get('data_prefix') or {}
        path = os.path.join(root, dataset.get('ann_file', ''))
        if path.endswith('.json'):
            img = prefix.get('img') or prefix.get('img_path') or ''
            folder = os.path.join(root, img)
            _, problems, size = check_coco_set(path, folder, images, max_pixels)
        elif path.endswith('.txt'):
            folder = os.path.join(root, prefix.get('sub_data_root', ''))
            known = getattr(DATASETS.get(dataset.get('type', '')), 'METAINFO', {})
            classes = {**known, **(dataset.get('metainfo') or {})}.get('classes')
            problems, size = check_voc_set(folder, path, classes, images, max_pixels)
        else:
            raise DataError(
                f'{path}: not a .json (COCO) or .txt (VOC) annotation file, and these '
                'are all that can be checked'
            )
        yield path, problems, size
