"""Read the files of the labelling tools LabelMe and CVAT."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Optional

from globox import BoundingBox

from .convert import Collector, Converted, relative_to_common_folder
from .problems import DataError


def from_labelme(folder: Path, classes: Optional[Sequence[str]] = None) -> Converted:
    """Read the JSON files in a folder and below, as LabelMe writes them.

    Args:
        folder: The folder.
        classes: Class names in the order of their ids; default: those found, sorted.
    """
    files = {str(path): _load_labelme(path) for path in sorted(folder.rglob('*.json'))}
    if not files:
        raise DataError(f'{folder}: no JSON file of LabelMe')
    shapes = [shape for content in files.values() for shape in content['shapes']]
    found = {str(shape.get('label')) for shape in shapes}
    collector = Collector(sorted(found) if classes is None else classes)
    images = [_labelme_image(path, content) for path, content in files.items()]
    image_folder, names = relative_to_common_folder(images)
    for name, (path, content) in zip(names, files.items()):
        size = content.get('imageWidth'), content.get('imageHeight')
        if not collector.add_image(name, size, path):
            continue
        for number, shape in enumerate(content['shapes'], start=1):
            where, kind = f'shape {number}', shape.get('shape_type')
            if kind in ('rectangle', 'polygon'):
                parse = BoundingBox.from_labelme
                collector.add_box(name, parse, shape, path, where)
            else:
                detail = f'shape_type={kind!r}; rectangles and polygons become boxes'
                collector.leave_out(path, where, 'malformed object', detail)
    return collector.finish(image_folder)


def _load_labelme(path: Path) -> dict:
    try:
        content = json.loads(path.read_text('utf-8-sig'))
    except ValueError as error:
        raise DataError(f'{path}: not readable JSON ({error})') from error
    shapes = content.get('shapes') if isinstance(content, dict) else None
    is_list = isinstance(shapes, list) and all(isinstance(s, dict) for s in shapes)
    if not is_list or 'imagePath' not in content:
        raise DataError(f'{path}: no imagePath or no shapes, so not a LabelMe file')
    content.pop('imageData', None)  # a copy of the image
    return content


def _labelme_image(path: str, content: dict) -> Path:
    """Return the image of a file, or the one beside it if that was moved."""
    folder = Path(path).parent
    image = folder / PureWindowsPath(str(content['imagePath'])).as_posix()
    return image if image.exists() else folder / image.name


def from_cvat(
    path: Path, image_folder: Path, classes: Optional[Sequence[str]] = None
) -> Converted:
    """Read a file that CVAT exported as "CVAT for images 1.1".

    Args:
        path: The XML file.
        image_folder: Folder of the images.
        classes: Class names in the order of their ids; default: the labels of the
            task, in its order.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f'{path}: there is no such file') from error
    except ElementTree.ParseError as error:
        raise DataError(f'{path}: not readable XML ({error})') from error
    images = root.findall('image')
    if root.tag != 'annotations' or not images:
        raise DataError(
            f'{path}: no images in it; export the task as "CVAT for images 1.1"'
        )
    labels = [element.text or '' for element in root.findall('.//labels/label/name')]
    collector = Collector(list(dict.fromkeys(labels)) if classes is None else classes)
    for image in images:
        name = image.get('name', '')
        size = image.get('width'), image.get('height')
        if not collector.add_image(name, size, str(path), f'image {name!r}'):
            continue
        for number, shape in enumerate(image, start=1):
            where = f'image {name!r}, shape {number} ({shape.tag})'
            turned = float(shape.get('rotation') or 0)
            if shape.tag in ('box', 'polygon') and not turned:
                collector.add_box(name, _cvat_box, shape, str(path), where)
            elif shape.tag != 'tag':  # which labels the whole image
                detail = f'turned by {turned:g}°; ' if turned else ''
                detail += 'upright boxes and polygons become boxes'
                collector.leave_out(str(path), where, 'malformed object', detail)
    return collector.finish(str(image_folder))


def _cvat_box(shape: ElementTree.Element) -> BoundingBox:
    if shape.tag == 'box':
        return BoundingBox.from_cvat(shape)
    points = [
        [float(v) for v in point.split(',')]
        for point in shape.attrib['points'].split(';')
    ]
    return BoundingBox.from_labelme(dict(label=shape.attrib['label'], points=points))
