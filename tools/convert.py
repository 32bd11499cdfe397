r"""Convert YOLO, LabelMe, CVAT or Pascal VOC annotations to COCO's format.

Examples:
    python tools/convert.py yolo path/to/data.yaml train.json --split train
    python tools/convert.py labelme path/to/folder train.json --classes cat dog
    python tools/convert.py cvat path/to/annotations.xml train.json
    python tools/convert.py voc VOCdevkit/VOC2007 train.json --split train \
        --classes cat dog --images-to resized --size 320 240

Requires the extra `convert`: pip install "mmdet_consistent[convert]"
"""

import argparse
import functools
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import mmdet_consistent  # noqa: F401  # isort: skip  # operators before mmdet
import cv2
from globox import BoundingBox

from mmdet_consistent.datasets.check_coco import check_coco_set
from mmdet_consistent.datasets.check_image import inspect_image
from mmdet_consistent.datasets.check_voc import (
    check_voc_file,
    corners,
    find_image,
    read_list,
)
from mmdet_consistent.datasets.convert import Collector, Converted
from mmdet_consistent.datasets.kinds import IMAGE, OBJECT
from mmdet_consistent.datasets.labelling_tools import from_cvat, from_labelme
from mmdet_consistent.datasets.problems import DataError, Problem, summary
from mmdet_consistent.datasets.yolo import YoloData, read_yolo
from mmdet_consistent.engine.launch import friendly_errors
from mmdet_consistent.utils import atomic

# Problems of an object that hint at a mistake in the whole data set.
MISTAKES = ('unknown category', 'box that is no number', 'malformed object')


def from_voc(root: Path, split: str, classes: Sequence[str]) -> Converted:
    """Read one split of a VOC folder.

    Boxes are those of mmdet's ``VOCDataset``: VOC counts pixels from 1, COCO from 0.
    A difficult object becomes a crowd (``iscrowd=1``), which isn't trained and counts
    neither as found nor as missed.

    Args:
        root: Folder with Annotations, ImageSets/Main and JPEGImages.
        split: Name of the split's list, such as ``train``.
        classes: Class names in the order of their ids (from 1).
    """
    collector = Collector(classes)
    difficult = []
    names = read_list(str(root / 'ImageSets' / 'Main' / f'{split}.txt'))
    for name in dict.fromkeys(names):
        image_path = find_image(str(root / 'JPEGImages'), name)
        xml_path = str(root / 'Annotations' / f'{name}.xml')
        element, problems = check_voc_file(xml_path, image_path, classes, 'quick')
        collector.problems += problems
        if element is None:
            continue
        size = inspect_image(image_path, 'quick')[1]
        file_name = f'{name}{Path(image_path).suffix}'
        collector.add_image(file_name, size, image_path)
        parse = functools.partial(_voc_box, size=size)
        for entry in element.findall('object'):
            where = f'object ({entry.findtext("name")})'
            collector.add_box(file_name, parse, entry, xml_path, where)
            difficult.append(int(entry.findtext('difficult') or 0) != 0)
    converted = collector.finish(str(root / 'JPEGImages'))
    for annotation, flag in zip(converted.content['annotations'], difficult):
        annotation['iscrowd'] = int(flag)
    return converted


def _voc_box(entry: ElementTree.Element, size: tuple[float, float]) -> BoundingBox:
    limits = (*size, *size)
    x1, y1, x2, y2 = (min(max(v, 0), most) for v, most in zip(corners(entry), limits))
    label = entry.findtext('name', '')
    return BoundingBox(label=label, xmin=x1, ymin=y1, xmax=x2, ymax=y2)


def write_images(
    converted: Converted,
    folder: Path,
    size: Optional[tuple[int, int]],
    quality: int = 90,
) -> Converted:
    """Copy the images, or write them in another size and scale the boxes.

    Args:
        converted: The data set; changed in place.
        folder: Folder to write to.
        size: Width and height in pixels of every image; None to copy the files.
        quality: JPEG quality of resized images.

    Returns:
        The data set with the new image folder.

    Raises:
        DataError: If an image can't be read, or two would have the same name.
    """
    scales, written = {}, set()
    for image in converted.content['images']:
        source = Path(converted.image_folder, image['file_name'])
        name = Path(image['file_name'])
        if name.is_absolute() or '..' in name.parts:
            raise DataError(f'{source}: outside the folder of the images')
        if not source.is_file():
            raise DataError(f'{source}: there is no such image')
        content = source.read_bytes()
        if size is not None:
            pixels = cv2.imread(str(source))
            if pixels is None:
                raise DataError(f'{source}: not a readable image')
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            options = [cv2.IMWRITE_JPEG_QUALITY, quality]
            content = cv2.imencode('.jpg', pixels, options)[1].tobytes()
            scales[image['id']] = size[0] / image['width'], size[1] / image['height']
            name = name.with_suffix('.jpg')
            image.update(file_name=name.as_posix(), width=size[0], height=size[1])
        if image['file_name'] in written:
            raise DataError(f'{source}: two images would be {image["file_name"]}')
        written.add(image['file_name'])
        atomic.write(folder / image['file_name'], content)
    for entry in converted.content['annotations']:
        scale = scales.get(entry['image_id'], (1, 1)) * 2
        entry['bbox'] = [round(v * s, 2) for v, s in zip(entry['bbox'], scale)]
        entry['area'] = round(entry['bbox'][2] * entry['bbox'][3], 2)
    return converted._replace(image_folder=str(folder))


def save(
    converted: Converted,
    out: Path,
    images_to: Optional[Path] = None,
    size: Optional[tuple[int, int]] = None,
    bad_data: str = 'refuse',
) -> list[Problem]:
    """Write a data set as a COCO file.

    Args:
        converted: The data set.
        out: File to write.
        images_to: Folder for copies of the images; None to leave the images alone.
        size: See :func:`write_images`.
        bad_data: ``refuse`` stops at images that can't be used and at objects that hint
            at a mistake, ``drop`` leaves them out. Boxes without area are always left
            out.

    Returns:
        The problem of each image and object that is left out.

    Raises:
        DataError: If something is refused, or no image is left.
    """
    left_out = [p for p in converted.problems if p.effect in (IMAGE, OBJECT)]
    mistakes = [p for p in left_out if p.effect == IMAGE or p.kind in MISTAKES]
    if bad_data == 'refuse' and mistakes:
        raise DataError(
            f'{out} is not written; mend these, or leave them out by --bad-data drop:\n'
            f'{summary(mistakes, 20)}'
        )
    if not converted.content['images']:
        raise DataError(f'{out} is not written: no image is left')
    if images_to is not None:
        converted = write_images(converted, images_to, size)
    text = json.dumps(converted.content, separators=(',', ':'))
    atomic.write(out, text.encode())
    return left_out


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('format', choices=('yolo', 'labelme', 'cvat', 'voc'))
    parser.add_argument(
        'source',
        type=Path,
        help='data.yaml or its folder (yolo), folder (labelme, voc), XML file (cvat)',
    )
    parser.add_argument('out', type=Path, help='COCO file to write')
    parser.add_argument('--split', default='train', help='which split of YOLO or VOC')
    parser.add_argument(
        '--classes',
        nargs='+',
        help='class names in the order of their ids; required for voc. The same for '
        'all splits, so that their ids agree. YOLO has them in data.yaml',
    )
    parser.add_argument(
        '--image-folder',
        type=Path,
        help="folder of CVAT's images; default: images/ beside the XML file",
    )
    parser.add_argument('--images-to', type=Path, help='copy the images to this folder')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('WIDTH', 'HEIGHT'),
        help='size in pixels of the copies',
    )
    parser.add_argument(
        '--bad-data',
        choices=('refuse', 'drop'),
        default='refuse',
        help='stop at unusable images and objects, or leave them out',
    )
    args = parser.parse_args()
    if args.format == 'voc' and not args.classes:
        parser.error('voc needs --classes')
    if args.format == 'yolo' and args.classes:
        parser.error('the classes of a YOLO data set are those of its data.yaml')
    if args.size and not args.images_to:
        parser.error('--size needs --images-to')
    return args


def read(args: argparse.Namespace) -> Converted:
    if args.format == 'yolo':
        return read_yolo(YoloData(args.source), args.split)
    if args.format == 'labelme':
        return from_labelme(args.source, args.classes)
    if args.format == 'cvat':
        folder = args.image_folder or args.source.parent / 'images'
        return from_cvat(args.source, folder, args.classes)
    return from_voc(args.source, args.split, args.classes)


def main() -> None:
    args = parse_args()
    size = tuple(args.size) if args.size else None
    with friendly_errors():
        converted = read(args)
        left_out = save(converted, args.out, args.images_to, size, args.bad_data)
        content = converted.content
        names = tuple(category['name'] for category in content['categories'])
        folder = str(args.images_to or converted.image_folder)
        _, problems, count = check_coco_set(
            str(args.out), folder, 'quick', content=content, places=converted.places
        )
        print(f'{args.out}: {count}, classes={names}, images in {folder}')
        for title, found in (('left out', left_out), ('check_data', problems)):
            if found:
                print(f'{title}:\n{summary(found, 20)}')


if __name__ == '__main__':
    main()
