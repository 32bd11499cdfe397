"""Convert a Pascal VOC folder to COCO annotations, and resize the images if asked.

Example:
    python tools/convert_voc.py path/to/voc data/bccd --size 320 240 \
        --categories RBC WBC Platelets
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import cv2

from mmdet_consistent.datasets.check_image import inspect_image
from mmdet_consistent.datasets.check_voc import (
    check_voc_file,
    corners,
    find_image,
    read_list,
)
from mmdet_consistent.datasets.kinds import IMAGE, OBJECT
from mmdet_consistent.datasets.problems import DataError
from mmdet_consistent.engine.launch import friendly_errors
from mmdet_consistent.utils import atomic

# Problems of an object that hint at a mistake, and are not dropped.
STOP = ('unknown category', 'box that is no number')


def read_objects(
    xml_path: Path, image_path: Path, categories: Sequence[str]
) -> tuple[list, list[str]]:
    """Read the objects of one VOC file as mmdet's ``VOCDataset`` does.

    Args:
        xml_path: The annotation file.
        image_path: The image file.
        categories: Known category names, in the order of their ids (from 1).

    Returns:
        ``(category_id, [x1, y1, x2, y2], is_difficult)`` of each valid object, in
        pixels; and one sentence per object that is dropped because its box has no area.

    Raises:
        DataError: If the image or the XML can't be read, their sizes differ, a category
            is unknown, or a coordinate is not a number. The message names the file, the
            field and the value.
    """
    root, problems = check_voc_file(str(xml_path), str(image_path), categories, 'quick')
    for problem in problems:
        if problem.effect == IMAGE or problem.kind in STOP:
            raise DataError(str(problem))
    objects = [
        (
            categories.index(element.findtext('name', '')) + 1,
            corners(element),
            int(element.findtext('difficult') or 0) != 0,
        )
        for element in (() if root is None else root.findall('object'))
    ]
    return objects, [str(p) for p in problems if p.effect == OBJECT]


def write_image(
    source: Path, out: Path, size: Optional[tuple[int, int]], quality: int
) -> Path:
    """Copy an image as it is, or write it anew in another size; return its path."""
    if size is None:
        atomic.write(out, source.read_bytes())
        return out
    image = cv2.imread(str(source))
    if image is None:
        raise DataError(f'{source}: not a readable image')
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    out = out.with_name(f'{source.stem}.jpg')
    encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    atomic.write(out, encoded.tobytes())
    return out


def convert(
    voc_root: Path,
    split: str,
    categories: Sequence[str],
    out_root: Path,
    size: Optional[tuple[int, int]] = None,
    quality: int = 90,
) -> list[str]:
    """Write one split as ``images/`` and ``annotations/<split>.json``.

    Boxes are those of mmdet's ``VOCDataset``: VOC counts pixels from 1, COCO from 0.
    A difficult object becomes a crowd (``iscrowd=1``), which isn't trained and counts
    neither as found nor as missed.

    Args:
        voc_root: Folder with Annotations, ImageSets/Main and JPEGImages.
        split: Name of the split's list, such as ``train``.
        categories: Category names in the order of their ids (from 1).
        out_root: Folder to write to.
        size: Width and height in pixels to resize every image to; None to copy the
            image files as they are.
        quality: JPEG quality of resized images.

    Returns:
        One sentence per object that is dropped because its box has no area.

    Raises:
        DataError: If a file can't be used; see :func:`read_objects`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    dropped = []
    names = read_list(str(voc_root / 'ImageSets' / 'Main' / f'{split}.txt'))
    for name in dict.fromkeys(names):
        image_path = Path(find_image(str(voc_root / 'JPEGImages'), name))
        xml_path = voc_root / 'Annotations' / f'{name}.xml'
        objects, bad = read_objects(xml_path, image_path, categories)
        dropped += bad
        width, height = inspect_image(str(image_path), 'quick')[1]
        new_width, new_height = size or (width, height)
        file_name = f'{name}{image_path.suffix}'
        written = write_image(
            image_path, out_root / 'images' / file_name, size, quality
        )
        file_name = written.relative_to(out_root / 'images').as_posix()
        image_id = len(images) + 1
        images.append(
            dict(id=image_id, file_name=file_name, width=new_width, height=new_height)
        )
        for category_id, (x1, y1, x2, y2), is_difficult in objects:
            x1, x2 = (min(max(x, 0), width) * new_width / width for x in (x1, x2))
            y1, y2 = (min(max(y, 0), height) * new_height / height for y in (y1, y2))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category_id,
                    bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    area=round((x2 - x1) * (y2 - y1), 2),
                    iscrowd=int(is_difficult),
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
    with friendly_errors():
        for split in args.splits:
            dropped = convert(
                args.voc_root, split, args.categories, args.out_root, size
            )
            print(f'{split}: dropped {len(dropped)} objects without area')
            for sentence in dropped:
                print(f'  {sentence}')


if __name__ == '__main__':
    main()
