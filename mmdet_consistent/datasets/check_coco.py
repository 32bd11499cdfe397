"""Find the problems of a COCO annotation file, and leave out what is bad."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from .check_image import MAX_PIXELS, check_image
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


def read_coco(path: Union[str, Path]) -> dict:
    """Read a COCO annotation file.

    Raises:
        DataError: If the file is missing, is not JSON, is not a COCO detection file,
            or has no image or category. The message names the file.
    """
    if not os.path.isfile(path):
        raise DataError(f'{path}: there is no such annotation file')
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        empty = os.path.getsize(path) == 0
        reason = 'the file is empty' if empty else f'not readable JSON ({error})'
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


def check_coco(
    content: dict,
    path: Union[str, Path],
    image_folder: Optional[str] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> tuple[dict, list[Problem]]:
    """Check every image and every object.

    Args:
        content: Return value of :func:`read_coco`.
        path: The annotation file, for the messages.
        image_folder: Folder of the image files; None to leave them alone.
        images: Level of the check of image files, see :func:`check_image`.
        max_pixels: Largest number of pixels that an image may have.

    Returns:
        The content without what can't be used, and the problems.
    """
    checker = _Checker(str(path), image_folder, images, max_pixels)
    good_images = [e for e in content['images'] if checker.image(e)]
    checker.categories = {
        c['id'] for c in content['categories'] if isinstance(c, dict) and 'id' in c
    }
    good_objects = [o for o in content['annotations'] if checker.object(o)]
    cleaned = dict(content, images=good_images, annotations=good_objects)
    return cleaned, checker.problems


@dataclass
class _Checker:
    """Goes through a file once, and remembers ids, sizes and problems."""

    path: str
    image_folder: Optional[str]
    images: str
    max_pixels: int
    problems: list[Problem] = field(default_factory=list)
    sizes: dict[Any, tuple[float, float]] = field(default_factory=dict)
    names: dict[Any, str] = field(default_factory=dict)
    bad_images: set = field(default_factory=set)
    categories: set = field(default_factory=set)
    object_ids: set = field(default_factory=set)

    def image(self, entry: Any) -> bool:
        """Return whether an entry of ``images`` can be used."""
        problem = self._image_problem(entry)
        if problem is None:
            self.names[entry['id']] = entry['file_name']
            self.sizes[entry['id']] = (entry['width'], entry['height'])
            return True
        self.problems.append(problem)
        if isinstance(entry, dict) and entry.get('id') not in self.sizes:
            self.bad_images.add(entry.get('id'))
        return False

    def _image_problem(self, entry: Any) -> Optional[Problem]:
        kind, where, file = 'malformed image entry', 'images', self.path
        if not isinstance(entry, dict):
            return Problem(kind, file, where, repr(entry), IMAGE)
        key, name = entry.get('id'), entry.get('file_name')
        where = f'image {key!r} ({name})'
        absent = _absent(entry, 'id', 'file_name', 'width', 'height')
        if absent:
            return Problem(kind, file, where, absent, IMAGE)
        if key in self.sizes or key in self.bad_images:
            detail = f'already used by {self.names.get(key, "an image left out")}'
            return Problem('duplicate image id', file, where, detail, IMAGE)
        size = width, height = entry['width'], entry['height']
        if not all(is_number(v) and v > 0 for v in size):
            return Problem(kind, file, where, f'width, height = {size}', IMAGE)
        if width * height > self.max_pixels:
            detail = f'{width} × {height} is more than {self.max_pixels} pixels'
            return Problem('huge image', file, where, detail, IMAGE)
        if self.image_folder is None:
            return None
        file = os.path.join(self.image_folder, str(name))
        found = check_image(file, size, self.images, self.max_pixels)
        return found and Problem(found[0], file, where, found[1], IMAGE)

    def object(self, entry: Any) -> bool:
        """Return whether an entry of ``annotations`` can be used."""
        where, found = 'annotations', _malformed_object(entry)
        if isinstance(entry, dict):
            image = entry.get('image_id')
            where = f'object {entry.get("id")!r} of {self.names.get(image, image)}'
        if found is None and entry['image_id'] in self.bad_images:
            return False  # reported already, with its image
        found = found or self._wrong_reference(entry)
        found = found or _wrong_box(entry, self.sizes[entry['image_id']])
        if found is None:
            return True
        kind, detail, effect = found
        self.problems.append(Problem(kind, self.path, where, detail, effect))
        return effect == KEPT

    def _wrong_reference(self, entry: dict) -> Finding:
        if entry['image_id'] not in self.sizes:
            return 'unknown image', f'image_id = {entry["image_id"]!r}', OBJECT
        if entry['id'] in self.object_ids:
            return 'duplicate object id', 'another object has it too', OBJECT
        self.object_ids.add(entry['id'])
        if entry['category_id'] not in self.categories:
            return 'unknown category', f'category_id = {entry["category_id"]!r}', OBJECT
        return None


def _absent(entry: dict, *fields: str) -> str:
    """Name the fields that an entry lacks, if any."""
    absent = [name for name in fields if entry.get(name) is None]
    return f'no {", ".join(absent)}' if absent else ''


def _malformed_object(entry: Any) -> Finding:
    if not isinstance(entry, dict):
        return 'malformed object', repr(entry), OBJECT
    absent, box = _absent(entry, 'id', 'image_id', 'category_id'), entry.get('bbox')
    if absent or not isinstance(box, list) or len(box) != 4:
        return 'malformed object', absent or f'bbox = {box!r}', OBJECT
    return None


def _wrong_box(entry: dict, size: tuple[float, float]) -> Finding:
    """Check box and area of an object; fill in a missing area."""
    box = entry['bbox']
    corners = box
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
