"""What is wrong in a COCO annotation file, and the file without it."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Optional, Union

from .check_image import MAX_PIXELS, check_image
from .problems import IMAGE, KEPT, OBJECT, DataError, Problem, check_box, is_number


def read_coco(path: Union[str, Path]) -> dict:
    """Read an annotation file that has something in it.

    Raises:
        DataError: Naming the file, if it is missing, no JSON, not of COCO's form,
            or has no image.
    """
    if not os.path.isfile(path):
        raise DataError(f'{path}: there is no such annotation file')
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        size = os.path.getsize(path)
        what = 'the file is empty' if size == 0 else f'no readable JSON ({error})'
        raise DataError(f'{path}: {what}') from error
    for field in ('images', 'annotations', 'categories'):
        value = content.get(field) if isinstance(content, dict) else None
        if not isinstance(value, list):
            raise DataError(
                f'{path}: no list {field!r}, so this is no COCO annotation file of '
                'detections'
            )
    for field in ('images', 'categories'):
        if not content[field]:
            raise DataError(f'{path}: the list {field!r} is empty')
    return content


def check_coco(
    content: dict,
    path: Union[str, Path],
    image_folder: Optional[str] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> tuple[dict, list[Problem]]:
    """Look at every image and every object.

    Args:
        content: What :func:`read_coco` gave.
        path: The file it came from, for the messages.
        image_folder: Where the image files are; None leaves them alone.
        images: How closely to look at them: ``no``, ``quick`` or ``full``.
        max_pixels: More pixels than this are too many for an image.

    Returns:
        The content without what can't be used, and what is wrong.
    """
    checker = _Checker(str(path), image_folder, images, max_pixels)
    good_images = [e for e in content['images'] if checker.image(e)]
    checker.categories = {
        c['id'] for c in content['categories'] if isinstance(c, dict) and 'id' in c
    }
    good_objects = [o for o in content['annotations'] if checker.object(o)]
    cleaned = dict(content, images=good_images, annotations=good_objects)
    return cleaned, checker.problems


class _Checker:
    """Goes through a file once and remembers what it has met."""

    def __init__(
        self, path: str, image_folder: Optional[str], images: str, max_pixels: int
    ) -> None:
        self.path = path
        self.image_folder = image_folder
        self.images = images if image_folder is not None else 'no'
        self.max_pixels = max_pixels
        self.problems: list[Problem] = []
        self.sizes: dict[Any, tuple[int, int]] = {}
        self.names: dict[Any, str] = {}
        self.bad_images: set = set()
        self.categories: set = set()
        self.object_ids: Counter = Counter()

    def image(self, entry: Any) -> bool:
        """Whether an entry of ``images`` can be used."""
        if not isinstance(entry, dict):
            return self._bad('malformed image entry', 'images', repr(entry), IMAGE)
        where = f'image {entry.get("id")!r} ({entry.get("file_name")})'
        absent = [
            f for f in ('id', 'file_name', 'width', 'height') if entry.get(f) is None
        ]
        key = entry.get('id')
        if absent:
            self._remember_bad(key)
            detail = f'no {", ".join(absent)}'
            return self._bad('malformed image entry', where, detail, IMAGE)
        if key in self.sizes or key in self.bad_images:
            other = self.names.get(key, 'left out')
            detail = f'already used by {other}'
            return self._bad('duplicate image id', where, detail, IMAGE)
        size = (entry['width'], entry['height'])
        self.names[key] = entry['file_name']
        if not all(is_number(v) and v > 0 for v in size):
            self._remember_bad(key)
            detail = f'width, height = {size}'
            return self._bad('malformed image entry', where, detail, IMAGE)
        if size[0] * size[1] > self.max_pixels:
            self._remember_bad(key)
            detail = f'{size[0]} × {size[1]} is more than {self.max_pixels} pixels'
            return self._bad('huge image', where, detail, IMAGE)
        if self.image_folder is not None:
            file = os.path.join(self.image_folder, entry['file_name'])
            found = check_image(file, size, self.images, self.max_pixels)
            if found is not None:
                self._remember_bad(key)
                self.problems.append(Problem(found[0], file, where, found[1], IMAGE))
                return False
        self.sizes[key] = size
        return True

    def object(self, entry: Any) -> bool:
        """Whether an entry of ``annotations`` can be used."""
        if not isinstance(entry, dict):
            return self._bad('malformed object', 'annotations', repr(entry))
        image = entry.get('image_id')
        where = f'object {entry.get("id")!r} of {self.names.get(image, image)}'
        absent = [f for f in ('id', 'image_id', 'category_id') if entry.get(f) is None]
        box = entry.get('bbox')
        if absent or not isinstance(box, list) or len(box) != 4:
            detail = f'no {", ".join(absent)}' if absent else f'bbox = {box!r}'
            return self._bad('malformed object', where, detail)
        if image in self.bad_images:
            return False  # told already, with its image
        if image not in self.sizes:
            return self._bad('unknown image', where, f'image_id = {image!r}')
        self.object_ids[entry['id']] += 1
        if self.object_ids[entry['id']] > 1:
            return self._bad('duplicate object id', where, 'another one has it too')
        if entry['category_id'] not in self.categories:
            detail = f'category_id = {entry["category_id"]!r}'
            return self._bad('unknown category', where, detail)
        corners = box
        if all(is_number(v) for v in box):
            x, y, w, h = box
            corners = [x, y, x + w, y + h]
        found = check_box(corners, self.sizes[image])
        if found is None and not is_number(entry.get('area')):
            found = ('object without area field', f'area = {entry.get("area")!r}', KEPT)
            entry['area'] = box[2] * box[3]
        elif found is None and (min(box[2:]) < 1 or entry['area'] <= 0):
            # mmdet leaves such objects out of the training without a word.
            detail = f'bbox = {box}, area = {entry["area"]}'
            found = ('box under a pixel', detail, OBJECT)
        if found is None:
            return True
        self._bad(found[0], where, found[1], found[2])
        return found[2] == KEPT

    def _remember_bad(self, key: Any) -> None:
        if key is not None:
            self.bad_images.add(key)

    def _bad(self, kind: str, where: str, detail: str, effect: str = OBJECT) -> bool:
        self.problems.append(Problem(kind, self.path, where, detail, effect))
        return False
