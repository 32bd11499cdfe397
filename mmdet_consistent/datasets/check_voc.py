"""What is wrong in a VOC annotation file, and the file without it."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from PIL import Image

from .check_image import MAX_PIXELS, check_image
from .problems import IMAGE, KEPT, OBJECT, DataError, Problem, check_box, is_number


def read_list(path: Union[str, Path]) -> list[str]:
    """Read the names in a list of images.

    Raises:
        DataError: Naming the file, if it is missing or empty.
    """
    if not os.path.isfile(path):
        raise DataError(f'{path}: there is no such list of images')
    names = Path(path).read_text().split()
    if not names:
        raise DataError(f'{path}: the list is empty')
    return names


def check_voc_file(
    xml_path: Union[str, Path],
    image_path: Union[str, Path],
    classes: Optional[Sequence[str]] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> tuple[Optional[ElementTree.ElementTree], list[Problem]]:
    """Look at one image and its objects.

    Args:
        xml_path: The annotation file.
        image_path: The image file.
        classes: Names that are known; None takes every name.
        images: How closely to look at the image: ``no``, ``quick`` or ``full``.
        max_pixels: More pixels than this are too many for an image.

    Returns:
        The annotation without the objects that can't be used, or None if the
        image can't be; and what is wrong.
    """
    xml_path, image_path = str(xml_path), str(image_path)
    try:
        tree = ElementTree.parse(xml_path)
    except FileNotFoundError:
        missing = 'there is no such file'
        return None, [Problem('missing annotation', xml_path, 'file', missing, IMAGE)]
    except ElementTree.ParseError as error:
        what = 'the file is empty' if os.path.getsize(xml_path) == 0 else str(error)
        return None, [Problem('corrupt annotation', xml_path, 'file', what, IMAGE)]
    root = tree.getroot()
    problems = []
    size = _size(root)
    found = check_image(image_path, size, images, max_pixels)
    if found is not None:
        problems.append(Problem(found[0], image_path, 'image', found[1], IMAGE))
        return None, problems
    if size is None:
        size = _write_size(root, image_path)
        if size is None:
            problems.append(
                Problem('image size unknown', xml_path, 'size', 'not given', IMAGE)
            )
            return None, problems
        problems.append(
            Problem(
                'image size not in the annotation',
                xml_path,
                'size',
                f'taken from the image: {size[0]} × {size[1]}',
                KEPT,
            )
        )
    for index, element in enumerate(root.findall('object')):
        name = element.findtext('name')
        where = f'object {index} ({name})'
        found = _judge(element, name, classes, size)
        if found is not None:
            kind, detail, effect = found
            problems.append(Problem(kind, xml_path, where, detail, effect))
            if effect == OBJECT:
                root.remove(element)
    return tree, problems


def _judge(
    element: ElementTree.Element,
    name: Optional[str],
    classes: Optional[Sequence[str]],
    size: tuple[int, int],
) -> Optional[tuple[str, str, str]]:
    if name is None or (classes is not None and name not in classes):
        known = '' if classes is None else f'; known are {", ".join(classes)}'
        return 'unknown category', f'name = {name!r}{known}', OBJECT
    texts = [element.findtext(f'bndbox/{f}') for f in ('xmin', 'ymin', 'xmax', 'ymax')]
    box = [_number(text) for text in texts]
    if any(value is None for value in box):
        return 'box that is no number', f'xmin, ymin, xmax, ymax = {texts}', OBJECT
    return check_box(box, size)


def _number(text: Optional[str]) -> Optional[float]:
    try:
        value = float(text or '')
    except ValueError:
        return None
    return value if is_number(value) else None


def _size(root: ElementTree.Element) -> Optional[tuple[int, int]]:
    size = [_number(root.findtext(f'size/{field}')) for field in ('width', 'height')]
    if None in size or min(size) <= 0:
        return None
    return int(size[0]), int(size[1])


def _write_size(
    root: ElementTree.Element, image_path: str
) -> Optional[tuple[int, int]]:
    """Put the image's own size where the annotation has none."""
    if not os.path.isfile(image_path):
        return None
    with Image.open(image_path) as image:
        size = image.size
    element = root.find('size')
    if element is None:
        element = ElementTree.SubElement(root, 'size')
    for field, value in zip(('width', 'height'), size):
        child = element.find(field)
        if child is None:
            child = ElementTree.SubElement(element, field)
        child.text = str(value)
    return size
