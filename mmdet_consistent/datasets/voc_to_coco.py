"""Pascal VOC annotations to one COCO dictionary, with an optional resize."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import cv2

from ..utils import atomic


def read_objects(xml_path: Path, categories: Sequence[str]) -> tuple[list, list]:
    """Read the objects of one VOC file.

    Args:
        xml_path: The annotation file.
        categories: Known category names, in the order of their ids (from 1).

    Returns:
        ``(category_id, (x1, y1, x2, y2))`` of each sound object, pixels; and a
        sentence for each object dropped because its box has no area.

    Raises:
        ValueError: Naming the file, the field and the value, where the file is
            no XML, the category is unknown, or a coordinate is no number.
    """
    try:
        root = ElementTree.parse(xml_path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'{xml_path}: not a readable XML file ({error})') from error
    objects, dropped = [], []
    for index, element in enumerate(root.iter('object')):
        name = element.findtext('name')
        if name not in categories:
            raise ValueError(
                f'{xml_path}: object {index} has name={name!r}; known categories '
                f'are {list(categories)}'
            )
        box = []
        for field in ('xmin', 'ymin', 'xmax', 'ymax'):
            text = element.findtext(f'bndbox/{field}')
            try:
                box.append(float(text))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f'{xml_path}: object {index} has {field}={text!r}, which is '
                    'not a number'
                ) from error
        x1, y1, x2, y2 = box
        if not (x2 > x1 and y2 > y1):
            dropped.append(f'{xml_path.name}: object {index} ({name}) box {box}')
            continue
        objects.append((categories.index(name) + 1, (x1, y1, x2, y2)))
    return objects, dropped


def convert(
    voc_root: Path,
    split: str,
    categories: Sequence[str],
    out_root: Path,
    size: Optional[tuple[int, int]] = None,
    quality: int = 90,
) -> list[str]:
    """Write one split as ``images/`` and ``annotations/<split>.json``.

    Args:
        voc_root: Folder with Annotations, ImageSets/Main and JPEGImages.
        split: Name of the split's list, such as ``train``.
        categories: Category names in the order of their ids (from 1).
        out_root: Folder to write to.
        size: (width, height) in pixels to resize every image to.
        quality: JPEG quality of resized images.

    Returns:
        A sentence for each object dropped because its box has no area.

    Raises:
        ValueError: Naming file, field and value of what can't be read.
    """
    names = (voc_root / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()
    images, annotations, dropped = [], [], []
    (out_root / 'images').mkdir(parents=True, exist_ok=True)
    (out_root / 'annotations').mkdir(parents=True, exist_ok=True)
    for image_id, name in enumerate(names, start=1):
        image_path = voc_root / 'JPEGImages' / f'{name}.jpg'
        image = cv2.imread(str(image_path))
        if image is None:
            raise ValueError(f'{image_path}: missing, or not a readable image')
        height, width = image.shape[:2]
        new_width, new_height = size or (width, height)
        if size is not None:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        file_name = f'{name}.jpg'
        encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        atomic.write(out_root / 'images' / file_name, encoded.tobytes())
        images.append(
            dict(id=image_id, file_name=file_name, width=new_width, height=new_height)
        )
        objects, bad = read_objects(
            voc_root / 'Annotations' / f'{name}.xml', categories
        )
        dropped += bad
        for category_id, (x1, y1, x2, y2) in objects:
            x1, x2 = (min(max(x, 0), width) * new_width / width for x in (x1, x2))
            y1, y2 = (min(max(y, 0), height) * new_height / height for y in (y1, y2))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category_id,
                    bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    area=round((x2 - x1) * (y2 - y1), 2),
                    iscrowd=0,
                )
            )
    coco = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=n) for i, n in enumerate(categories, start=1)],
    )
    path = out_root / 'annotations' / f'{split}.json'
    atomic.write(path, json.dumps(coco, separators=(',', ':')).encode())
    return dropped
