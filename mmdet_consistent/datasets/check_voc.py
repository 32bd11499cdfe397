"""Find the problems of a VOC annotation file, and leave out or mend what is bad."""

import glob
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from typing import Optional

from mmengine.fileio import get, get_text

from .check_image import (
    MAX_PIXELS,
    PLAIN,
    Loading,
    Size,
    check_image,
    inspect_image,
)
from .kinds import OBJECT, Finding, finding
from .problems import DataError, Problem, as_flag, check_box

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def read_list(path: str, backend_args: Optional[dict] = None) -> list[str]:
    """Read the names in a list of images; see :func:`read_coco` for the arguments.

    Raises:
        DataError: If the file is missing or empty. The message names it.
    """
    try:
        text = get_text(path, 'utf-8-sig', backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f'{path}: there is no such list of images') from error
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not in UTF-8 ({error})') from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise DataError(f'{path}: the list is empty')
    return names


def find_image(folder: str, name: str, loading: Loading = PLAIN) -> str:
    """Return the path of an image: ``name.jpg``, or the file with another ending.

    mmdet looks for ``.jpg`` alone. A remote folder is not searched.
    """
    path = os.path.join(folder, f'{name}.jpg')
    if loading.is_local(path) and not os.path.isfile(path):
        for other in sorted(glob.glob(glob.escape(path[: -len('jpg')]) + '*')):
            if os.path.splitext(other)[1].lower() in SUFFIXES:
                return other
    return path


def check_voc_set(
    root: str,
    list_file: str,
    classes: Optional[Sequence[str]] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
    *,
    img_subdir: str = 'JPEGImages',
    ann_subdir: str = 'Annotations',
    backend_args: Optional[dict] = None,
    loading: Loading = PLAIN,
) -> tuple[list[Problem], str]:
    """Check the images of one list of a VOC folder.

    Args:
        root: The folder.
        list_file: File with one name per line; see :func:`read_list`.
        classes: See :func:`check_voc_file`, also for the others.
        images: See there.
        max_pixels: See there.
        img_subdir: Folder of the images in ``root``.
        ann_subdir: Folder of the annotations in ``root``.
        backend_args: See there.
        loading: See there.

    Returns:
        The problems, and the size of the data set.
    """
    problems, objects = [], 0
    names = read_list(list_file, backend_args)
    for name in names:
        annotation, found = check_voc_file(
            os.path.join(root, ann_subdir, f'{name}.xml'),
            find_image(os.path.join(root, img_subdir), name, loading),
            classes,
            images,
            max_pixels,
            backend_args=backend_args,
            loading=loading,
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
    *,
    backend_args: Optional[dict] = None,
    loading: Loading = PLAIN,
) -> tuple[Optional[ElementTree.Element], list[Problem]]:
    """Check one image and its objects.

    Args:
        xml_path: The annotation file.
        image_path: The image file.
        classes: Known class names; None accepts every name.
        images: Level of the check of the image file, see :func:`check_image`.
        max_pixels: Largest number of pixels that an image may have.
        backend_args: mmengine's storage backend of the annotation; None: by the path.
        loading: How the pipeline loads images.

    Returns:
        The annotation's root without the objects that can't be used, or None if the
        image can't be used; and the problems.
    """
    problems: list[Problem] = []
    try:
        root, encoding = _parse(get(xml_path, backend_args))
    except FileNotFoundError:
        wrong = finding('missing annotation', 'there is no such file')
        return None, [Problem(xml_path, 'file', *wrong)]
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        wrong = finding('corrupt annotation', str(error) or 'the file is empty')
        return None, [Problem(xml_path, 'file', *wrong)]
    if encoding:
        wrong = finding('encoding unknown to the XML parser', encoding)
        problems.append(Problem(xml_path, 'file', *wrong))
    size = _size(root)
    texts = [root.findtext(f'size/{field}', '') for field in ('width', 'height')]
    if size is not None and not all(text.strip().isdigit() for text in texts):
        wrong = finding('image size that is no integer', f'width, height = {texts}')
        problems.append(Problem(xml_path, 'size', *wrong))
    found = check_image(image_path, size, images, max_pixels, loading)
    if size is None and found is None:
        found, size = inspect_image(image_path, 'quick', max_pixels, loading)
        detail = f'taken from the image: {size[0]} × {size[1]}'
        wrong = finding('image size not in the annotation', detail)
        problems.append(Problem(xml_path, 'size', *wrong))
    if found is not None or size is None:
        return None, [Problem(image_path, 'image', *(found or wrong))]
    _write_size(root, size)
    for index, element in enumerate(root.findall('object')):
        for found in _wrong_object(element, classes, size):
            where = f'object {index} ({element.findtext("name")})'
            problems.append(Problem(xml_path, where, *found))
            if found[2] == OBJECT:
                root.remove(element)
    return root, problems


def _wrong_object(
    element: ElementTree.Element, classes: Optional[Sequence[str]], size: Size
) -> Iterator[tuple[str, str, str]]:
    found = check_object(element, classes, size)
    if found is not None:
        yield found
    difficult = element.find('difficult')
    if difficult is None or (found is not None and found[2] == OBJECT):
        return
    try:
        int(difficult.text or '')
    except ValueError:
        yield finding('difficult that is no number', f'difficult={difficult.text!r}')
        difficult.text = str(as_flag(difficult.text))


def check_object(
    element: ElementTree.Element,
    classes: Optional[Sequence[str]],
    size: Optional[Size],
) -> Finding:
    """Check the name and the box of an ``object``. See :func:`check_box` for size."""
    name = element.findtext('name')
    if name is None or (classes is not None and name not in classes):
        known = '' if classes is None else f'; known classes are {", ".join(classes)}'
        return finding('unknown category', f'name={name!r}{known}')
    texts = [element.findtext(f'bndbox/{field}') for field in CORNERS]
    for field, text in zip(CORNERS, texts):
        if _number(text) is None:
            return finding('box that is no number', f'{field}={text!r}')
    box = corners(element)
    detail = f'{", ".join(CORNERS)} = {", ".join(map(str, texts))}, which mmdet reads '
    return check_box(box, size, f'{detail}as x1, y1, x2, y2 = {box}')


def corners(element: ElementTree.Element) -> list[int]:
    """Return the box of an ``object`` as mmdet reads it: x1, y1, x2, y2 in pixels."""
    texts = [element.findtext(f'bndbox/{field}', '') for field in CORNERS]
    return [int(float(text)) - 1 for text in texts]


def _parse(content: bytes) -> tuple[ElementTree.Element, str]:
    """Parse a file. Return also the encoding that mmdet's parser couldn't read."""
    try:
        return ElementTree.fromstring(content), ''
    except (ValueError, LookupError):  # no ParseError, which is a SyntaxError
        declaration = re.match(rb'\s*<\?xml[^>]*encoding=["\']([^"\']+)', content)
        if declaration is None:
            raise
        encoding = declaration[1].decode()
        text = content.decode(encoding).partition('?>')[2]
        return ElementTree.fromstring(text), encoding


def _number(text: Optional[str]) -> Optional[float]:
    """Return the finite number that a text stands for, if it does."""
    try:
        value = float(text or 'nan')
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _size(root: ElementTree.Element) -> Optional[Size]:
    """Return the annotated width and height in pixels, if there are any."""
    width = int(_number(root.findtext('size/width')) or 0)
    height = int(_number(root.findtext('size/height')) or 0)
    return (width, height) if min(width, height) > 0 else None


def _write_size(root: ElementTree.Element, size: Size) -> None:
    """Write the size as mmdet reads it: without fractions, in the first ``size``."""
    parent = root.find('size')
    if parent is None:
        parent = ElementTree.SubElement(root, 'size')
    for field, value in zip(('width', 'height'), size):
        element = parent.find(field)
        if element is None:
            element = ElementTree.SubElement(parent, field)
        element.text = str(value)
