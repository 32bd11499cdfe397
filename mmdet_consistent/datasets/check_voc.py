"""Find the problems of a VOC annotation file, and leave out what is bad."""

import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Optional

from mmengine.fileio import get_text
from PIL import Image

from .check_image import MAX_PIXELS, check_image
from .problems import IMAGE, KEPT, OBJECT, DataError, Finding, Problem, check_box

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_list(path: str, backend_args: Optional[dict] = None) -> list[str]:
    """Read the names in a list of images; see :func:`read_coco` for the arguments.

    Raises:
        DataError: If the file is missing or empty. The message names it.
    """
    try:
        names = get_text(path, backend_args=backend_args).split()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f'{path}: there is no such list of images') from error
    if not names:
        raise DataError(f'{path}: the list is empty')
    return names


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
        list_file: File with one name per line; see :func:`read_list`.
        classes: See :func:`check_voc_file`, also for the others.
        images: See there.
        max_pixels: See there.

    Returns:
        The problems, and the size of the data set.
    """
    problems, objects = [], 0
    names = read_list(list_file)
    for name in names:
        xml_path = os.path.join(root, 'Annotations', f'{name}.xml')
        image_path = os.path.join(root, 'JPEGImages', f'{name}.jpg')
        annotation, found = check_voc_file(
            xml_path, image_path, classes, images, max_pixels
        )
        problems += found
        objects += 0 if annotation is None else len(annotation.findall('object'))
    return problems, f'{len(names)} images, {objects} good objects'


def check_voc_file(
    xml_path: str,
    image_path: str,
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
    try:
        root = ElementTree.parse(xml_path).getroot()
    except FileNotFoundError:
        wrong = 'missing annotation', 'there is no such file', IMAGE
        return None, [Problem(xml_path, 'file', *wrong)]
    except ElementTree.ParseError as error:
        reason = 'the file is empty' if os.path.getsize(xml_path) == 0 else str(error)
        wrong = 'corrupt annotation', reason, IMAGE
        return None, [Problem(xml_path, 'file', *wrong)]
    size = _size(root)
    found = check_image(image_path, size, images, max_pixels)
    if found is not None:
        return None, [Problem(image_path, 'image', *found)]
    problems = []
    if size is None:
        if not os.path.isfile(image_path):
            found = 'image size unknown', 'not given, and there is no image', IMAGE
            return None, [Problem(xml_path, 'size', *found)]
        with Image.open(image_path) as image:
            size = image.size
        for element in root.findall('size'):
            root.remove(element)  # mmdet, too, then asks the image
        detail = f'taken from the image: {size[0]} × {size[1]}'
        found = 'image size not in the annotation', detail, KEPT
        problems.append(Problem(xml_path, 'size', *found))
    for index, element in enumerate(root.findall('object')):
        found = check_object(element, classes, size)
        if found is not None:
            where = f'object {index} ({element.findtext("name")})'
            problems.append(Problem(xml_path, where, *found))
            if found[2] == OBJECT:
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
    return value if math.isfinite(value) else None


def _size(root: ElementTree.Element) -> Optional[tuple[float, float]]:
    """Return the annotated width and height in pixels, if there are any."""
    width = int(_number(root.findtext('size/width')) or 0)
    height = int(_number(root.findtext('size/height')) or 0)
    return (width, height) if min(width, height) > 0 else None
