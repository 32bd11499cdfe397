"""Find the problems of a COCO annotation file, and leave out what is bad."""

import json
import os
from typing import Any, Optional

from mmengine.fileio import get

from .check_image import MAX_PIXELS, check_image, check_pixels
from .problems import (
    IMAGE,
    KEPT,
    OBJECT,
    DataError,
    Finding,
    Problem,
    check_box,
    is_number,
)

# Image entries by id, empty for an image that is left out.
Images = dict[Any, dict]


def read_coco(path: str, backend_args: Optional[dict] = None) -> dict:
    """Read a COCO annotation file.

    Args:
        path: The file.
        backend_args: mmengine's storage backend; default: by the path.

    Raises:
        DataError: If the file is missing, is not JSON, is not a COCO detection file,
            or has no image or category. The message names the file.
    """
    try:
        text = get(path, backend_args)
        content = json.loads(text)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f'{path}: there is no such annotation file') from error
    except ValueError as error:
        reason = f'not readable JSON ({error})' if text else 'the file is empty'
        raise DataError(f'{path}: {reason}') from error
    for name in ('images', 'annotations', 'categories'):
        value = content.get(name) if isinstance(content, dict) else None
        if not isinstance(value, list):
            raise DataError(
                f'{path}: no list {name!r}, so this is not a COCO detection file'
            )
        if not value and name != 'annotations':
            raise DataError(f'{path}: the list {name!r} is empty')
    return content


def check_coco_set(
    path: str,
    image_folder: Optional[str] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
    backend_args: Optional[dict] = None,
) -> tuple[dict, list[Problem], str]:
    """Check every image and every object of a COCO annotation file.

    Args:
        path: The annotation file.
        image_folder: Folder of the image files; None to leave them alone.
        images: Level of the check of image files, see :func:`check_image`.
        max_pixels: Largest number of pixels that an image may have.
        backend_args: See :func:`read_coco`, also for the errors raised.

    Returns:
        The content without what can't be used, the problems, and the size of the data
        set.
    """
    content = read_coco(path, backend_args)
    size = f'{len(content["images"])} images, {len(content["annotations"])} objects'
    problems: list[Problem] = []
    known: Images = {}
    for entry in content['images']:
        file, found = path, _wrong_image(entry, known, max_pixels)
        if found is None and image_folder is not None:
            file = os.path.join(image_folder, str(entry['file_name']))
            annotated = entry['width'], entry['height']
            found = check_image(file, annotated, images, max_pixels)
        if found is None:
            known[entry['id']] = entry
            continue
        where = 'images'
        if isinstance(entry, dict):
            where = f'image {entry.get("id")!r} ({entry.get("file_name")})'
            known.setdefault(entry.get('id'), {})
        problems.append(Problem(file, where, *found))
    objects, more = _check_objects(content, path, known)
    good = dict(images=[e for e in known.values() if e], annotations=objects)
    return dict(content, **good), problems + more, size


def _check_objects(
    content: dict, path: str, known: Images
) -> tuple[list[dict], list[Problem]]:
    """Return the objects that can be used, and the problems."""
    good: list[dict] = []
    problems: list[Problem] = []
    ids: set = set()
    categories = {
        c['id'] for c in content['categories'] if isinstance(c, dict) and 'id' in c
    }
    for entry in content['annotations']:
        found = _wrong_object(entry, known, categories, ids)
        if found is not None:
            where = 'annotations'
            if isinstance(entry, dict):
                image = entry.get('image_id')
                name = known.get(image, {}).get('file_name', image)
                where = f'object {entry.get("id")!r} of {name}'
            problems.append(Problem(path, where, *found))
        if (found is None or found[2] == KEPT) and known[entry['image_id']]:
            good.append(entry)
    return good, problems


def _malformed(entry: Any, *fields: str) -> str:
    """Show an entry that is no dictionary, or name the fields that it lacks."""
    if not isinstance(entry, dict):
        return repr(entry)
    absent = [name for name in fields if entry.get(name) is None]
    return f'no {", ".join(absent)}' if absent else ''


def _wrong_image(entry: Any, known: Images, max_pixels: int) -> Finding:
    malformed = _malformed(entry, 'id', 'file_name', 'width', 'height')
    if malformed:
        return 'malformed image entry', malformed, IMAGE
    if entry['id'] in known:
        name = known[entry['id']].get('file_name', 'an image left out')
        return 'duplicate image id', f'already used by {name}', IMAGE
    size = entry['width'], entry['height']
    if not all(is_number(v) and v > 0 for v in size):
        return 'malformed image entry', f'width, height = {size}', IMAGE
    return check_pixels(*size, max_pixels)


def _wrong_object(entry: Any, known: Images, categories: set, ids: set) -> Finding:
    """Check an object, and remember its id."""
    malformed = _malformed(entry, 'id', 'image_id', 'category_id')
    box = None if malformed else entry.get('bbox')
    if not isinstance(box, list) or len(box) != 4:
        return 'malformed object', malformed or f'bbox = {box!r}', OBJECT
    image = known.get(entry['image_id'])
    if image is None:
        return 'unknown image', f'image_id = {entry["image_id"]!r}', OBJECT
    if not image:
        return None  # reported already, with its image
    if entry['id'] in ids:
        return 'duplicate object id', 'another object has it too', OBJECT
    ids.add(entry['id'])
    if entry['category_id'] not in categories:
        return 'unknown category', f'category_id = {entry["category_id"]!r}', OBJECT
    return _wrong_box(entry, (image['width'], image['height']))


def _wrong_box(entry: dict, size: tuple[float, float]) -> Finding:
    """Check box and area of an object; fill in a missing area."""
    corners = box = entry['bbox']
    if all(is_number(v) for v in box):
        x, y, w, h = box
        corners = [x, y, x + w, y + h]
    found = check_box(corners, size)
    if found is not None and found[2] == OBJECT:
        return found
    area = entry.get('area')
    if not is_number(area):
        entry['area'] = box[2] * box[3]
        return 'object without area field', f'area = {area!r}', KEPT
    if min(box[2:]) < 1 or entry['area'] <= 0:
        # mmdet drops such objects from training silently.
        return 'box under a pixel', f'bbox = {box}, area = {area}', OBJECT
    return found
