"""Check whole data sets: a COCO file, a VOC folder, or those that a config names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from mmdet.registry import DATASETS

from .check_coco import check_coco, read_coco
from .check_image import MAX_PIXELS
from .check_voc import check_voc_file, read_list
from .problems import DataError, Problem


def check_coco_set(
    ann_file: str,
    image_folder: Optional[str] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> tuple[dict, list[Problem], str]:
    """Check a COCO file; see :func:`.check_coco.check_coco` for the arguments.

    Returns:
        The content without what is bad, the problems, and the size of the data set.
    """
    content = read_coco(ann_file)
    size = f'{len(content["images"])} images, {len(content["annotations"])} objects'
    cleaned, problems = check_coco(content, ann_file, image_folder, images, max_pixels)
    return cleaned, problems, size


def check_voc_set(
    root: str,
    list_file: str,
    classes: Optional[Sequence[str]] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> tuple[list[Problem], str]:
    """Check the images of one list of a VOC folder.

    Args:
        root: Folder with Annotations and JPEGImages.
        list_file: File with one name per line.
        classes: See :func:`.check_voc.check_voc_file`, also for the others.
        images: See there.
        max_pixels: See there.

    Returns:
        The problems, and the size of the data set.
    """
    problems = []
    objects = 0
    names = read_list(list_file)
    for name in names:
        xml_path = Path(root, 'Annotations', f'{name}.xml')
        image_path = Path(root, 'JPEGImages', f'{name}.jpg')
        annotation, found = check_voc_file(
            xml_path, image_path, classes, images, max_pixels
        )
        problems += found
        objects += 0 if annotation is None else len(annotation.findall('object'))
    return problems, f'{len(names)} images, {objects} good objects'


def check_dataset_config(
    config: dict, images: str = 'full', max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[str, list[Problem], str]]:
    """Check the data of a ``dataset`` field of a config, wrappers included.

    Yields:
        Annotation file, problems and size of each data set.

    Raises:
        DataError: If a file can't be read, or is neither COCO's nor VOC's.
    """
    inner = config.get('datasets') or (
        [config['dataset']] if 'dataset' in config else []
    )
    for other in inner:
        yield from check_dataset_config(other, images, max_pixels)
    if inner:
        return
    root = config.get('data_root') or ''
    prefix = config.get('data_prefix') or {}
    ann_file = os.path.join(root, config.get('ann_file', ''))
    if ann_file.endswith('.json'):
        folder = os.path.join(root, prefix.get('img') or prefix.get('img_path') or '')
        _, problems, size = check_coco_set(ann_file, folder, images, max_pixels)
    elif ann_file.endswith('.txt'):
        folder = os.path.join(root, prefix.get('sub_data_root', ''))
        known = getattr(DATASETS.get(config.get('type', '')), 'METAINFO', {})
        classes = {**known, **(config.get('metainfo') or {})}.get('classes')
        problems, size = check_voc_set(folder, ann_file, classes, images, max_pixels)
    else:
        raise DataError(
            f'{ann_file}: not a .json (COCO) or .txt (VOC) annotation file, and these '
            'are all that can be checked'
        )
    yield ann_file, problems, size
