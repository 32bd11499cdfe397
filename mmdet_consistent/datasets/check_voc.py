"""Find the problems of a VOC annotation file, and leave out what is bad."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from PIL import Image

from .check_image import MAX_PIXELS, check_image
from .problems import IMAGE, KEPT, OBJECT, DataError, Finding, Problem, check_box

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_list(path: Union[str, Path]) -> list[str]:
    """Read the names in a list of images.

    Raises:
        DataError: If the file is missing or empty. The message names it.
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
) -> tuple[Optional[ElementTree.Element], list[Problem]]:
    """Check one image and its objects.

    Args:
        xml_path: The annotation file.
        image_path: The image file.
        classes: Known class names; None accepts every name.
        images: Level of the check of the image file, see :func:`check_image`.
        max_pixels: Largest number of pixels that an image may have.

    Returns:
        The annotation's root without the objects that can't be used, or None if the
        image can't be used; and the problems.
    """
    xml_path, image_path = str(xml_path), str(image_path)
    try:
        root = ElementTree.parse(xml_path).getroot()
    except FileNotFoundError:
        missing = 'there is no such file'
        return None, [Problem('missing annotation', xml_path, 'file', missing, IMAGE)]
    except ElementTree.ParseError as error:
        reason = 'the file is empty' if os.path.getsize(xml_path) == 0 else str(error)
        return None, [Problem('corrupt annotation', xml_path, 'file', reason, IMAGE)]
    size = _size(root)
    bad_image = check_image(image_path, size, images, max_pixels)
    if bad_image is not None:
        kind, detail = bad_image
        return None, [Problem(kind, image_path, 'image', detail, IMAGE)]
    problems = []
    if size is None:
        if not os.path.isfile(image_path):
            kind, detail = 'image size unknown', 'not given, and there is no image'
            return None, [Problem(kind, xml_path, 'size', detail, IMAGE)]
        with Image.open(image_path) as image:
            size = image.size
        for wrong in root.findall('size'):
            root.remove(wrong)  # mmdet, too, then asks the image
        kind = 'image size not in the annotation'
        detail = f'taken from the image: {size[0]} × {size[1]}'
        problems.append(Problem(kind, xml_path, 'size', detail, KEPT))
    for index, element in enumerate(root.findall('object')):
        where = f'object {index} ({element.findtext("name")})'
        found = check_object(element, classes, size)
        if found is not None:
            kind, detail, effect = found
            problems.append(Problem(kind, xml_path, where, detail, effect))
            if effect == OBJECT:
                root.remove(element)
    return root, problems


def check_object(
    element: ElementTree.Element,
    classes: Optional[Sequence[str]],
    size: Optional[tuple[float, float]],
) -> Finding:
    """Check the name and the box of an ``object``; see :func:`check_box` for size."""
    name = element.findtext('name')
    if name is None or (classes is not None and name not in classes):
        known = '' if classes is None else f'; known classes are {", ".join(classes)}'
        return 'unknown category', f'name={name!r}{known}', OBJECT
    for field in CORNERS:
        text = element.findtext(f'bndbox/{field}')
        if _number(text) is None:
            return 'box that is no number', f'{field}={text!r}', OBJECT
    return check_box(corners(element), size)


def corners(element: ElementTree.Element) -> list[float]:
    """Return xmin, ymin, xmax, ymax of an ``object``, in pixels."""
    return [float(element.findtext(f'bndbox/{field}', 'nan')) for field in CORNERS]


def _number(text: Optional[str]) -> Optional[float]:
    """Return the finite number that a text stands for, if it does."""
    try:
        value = float(text or 'nan')
    except ValueError:
        return None
    return value if abs(value) < float('inf') else None


def _size(root: ElementTree.Element) -> Optional[tuple[float, float]]:
    """Return the annotated width and height in pixels, if there are any."""
    width, height = (
        int(_number(root.findtext(f'size/{field}')) or 0)
        for field in ('width', 'height')
    )
    return (width, height) if min(width, height) > 0 else None
