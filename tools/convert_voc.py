"""Convert a Pascal VOC folder to COCO annotations, and resize the images if asked.

Example:
    python tools/convert_voc.py path/to/voc data/bccd --size 320 240 \
        --categories RBC WBC Platelets
"""

import argparse
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import cv2

from mmdet_consistent.datasets.check_voc import check_object, corners
from mmdet_consistent.utils import atomic


def read_objects(xml_path: Path, categories: Sequence[str]) -> tuple[list, list[str]]:
    """Read the objects of one VOC file.

    Args:
        xml_path: The annotation file.
        categories: Known category names, in the order of their ids (from 1).

    Returns:
        ``(category_id, [x1, y1, x2, y2])`` of each valid object, in pixels; and one
        sentence per object that is dropped because its box has no area.

    Raises:
        ValueError: If the file is not XML, a category is unknown, or a coordinate is
            not a number. The message names the file, the field and the value.
    """
    try:
        root = ElementTree.parse(xml_path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'{xml_path}: not a readable XML file ({error})') from error
    objects, dropped = [], []
    for index, element in enumerate(root.iter('object')):
        name = element.findtext('name', '')
        kind, detail, _ = check_object(element, categories, None) or ('', '', '')
        if kind in ('unknown category', 'box that is no number'):
            raise ValueError(f'{xml_path}: object {index} has {detail} ({kind})')
        if kind:
            dropped.append(
                f'{xml_path.name}: object {index} ({name}): {kind}: {detail}'
            )
        else:
            objects.append((categories.index(name) + 1, corners(element)))
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
        size: Width and height in pixels to resize every image to.
        quality: JPEG quality of the written images.

    Returns:
        One sentence per object that is dropped because its box has no area.

    Raises:
        ValueError: If a file can't be read; see :func:`read_objects`.
    """
    names = (voc_root / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    dropped = []
    for name in names:
        image_path = voc_root / 'JPEGImages' / f'{name}.jpg'
        image = cv2.imread(str(image_path))
        if image is None:
            raise ValueError(f'{image_path}: missing, or not a readable image')
        height, width = image.shape[:2]
        if size is not None:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        new_height, new_width = image.shape[:2]
        encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        file_name = f'{name}.jpg'
        atomic.write(out_root / 'images' / file_name, encoded.tobytes())
        image_id = len(images) + 1
        images.append(
            dict(id=image_id, file_name=file_name, width=new_width, height=new_height)
        )
        xml_path = voc_root / 'Annotations' / f'{name}.xml'
        objects, bad = read_objects(xml_path, categories)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('voc_root', type=Path)
    parser.add_argument('out_root', type=Path)
    parser.add_argument('--categories', nargs='+', required=True)
    parser.add_argument('--splits', nargs='+', default=['train', 'val', 'test'])
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'), help='in pixels'
    )
    args = parser.parse_args()
    size = tuple(args.size) if args.size else None
    for split in args.splits:
        dropped = convert(args.voc_root, split, args.categories, args.out_root, size)
        print(f'{split}: dropped {len(dropped)} objects without area')
        for sentence in dropped:
            print(f'  {sentence}')


if __name__ == '__main__':
    main()
