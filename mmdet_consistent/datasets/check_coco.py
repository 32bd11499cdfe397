"""Find the problems of a COCO annotation file, and leave out or mend what is bad."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

from mmdet.datasets.api_wrappers import COCO
from mmengine.fileio import get

from .check_image import MAX_PIXELS, PLAIN, Loading, check_image, check_pixels
from .kinds import HARMLESS, KEPT, RENUMBERED, Finding, finding
from .problems import DataError, Problem, as_flag, check_box, check_classes, is_number

# Image entries by id, empty for an image that is left out.
Images = dict[Any, dict]
# File and place in it, such as ``line 3``, of an object by its id.
Places = dict[int, tuple[str, str]]


def read_coco(
    path: str, backend_args: Optional[dict] = None
) -> tuple[dict, list[Problem]]:
    """Read a COCO annotation file.

    Args:
        path: The file.
        backend_args: mmengine's storage backend; default: by the path.

    Returns:
        The content, with an empty list if there are no annotations, as for unlabelled
        images; and a problem if the file isn't in plain UTF-8.

    Raises:
        DataError: If the file is missing, is not JSON, is not a COCO detection file,
            or has no image or category. The message names the file.
    """
    try:
        text = get(path, backend_args)
        encoding = json.detect_encoding(text)
        content = json.loads(text)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f'{path}: there is no such annotation file') from error
    except (ValueError, RecursionError) as error:
        reason = f'not readable JSON ({error})' if text else 'the file is empty'
        raise DataError(f'{path}: {reason}') from error
    if isinstance(content, dict):
        content.setdefault('annotations', [])
    for name in ('images', 'annotations', 'categories'):
        value = content.get(name) if isinstance(content, dict) else None
        if not isinstance(value, list):
            raise DataError(
                f'{path}: no list {name!r}, so this is not a COCO detection file'
            )
        if not value and name != 'annotations':
            raise DataError(f'{path}: the list {name!r} is empty')
    for entry in content['categories']:
        lacks_name = not isinstance(entry, dict) or 'name' not in entry
        if lacks_name or not is_id(entry.get('id')):
            raise DataError(f'{path}: categories: {entry!r} has no id or no name')
    if encoding == 'utf-8':
        return content, []
    found = finding('file not in plain UTF-8', f'{encoding}, with a byte-order mark')
    return content, [Problem(path, 'file', *found)]


def coco_api(content: dict, api: Callable[[], Any] = COCO) -> Any:
    """Return mmdet's COCO API of a content, as if it had read it from a file."""
    coco = api()
    coco.dataset = {'info': {}, **content}
    coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco


def check_coco_set(
    path: str,
    image_folder: Optional[str] = None,
    images: str = 'full',
    max_pixels: int = MAX_PIXELS,
    backend_args: Optional[dict] = None,
    *,
    loading: Loading = PLAIN,
    classes: Optional[Sequence[str]] = None,
    evaluation: bool = False,
    content: Optional[dict] = None,
    places: Optional[Places] = None,
) -> tuple[dict, list[Problem], str]:
    """Check every image and every object of a COCO annotation file.

    Args:
        path: The annotation file.
        image_folder: Folder of the image files; None to leave them alone.
        images: Level of the check of image files, see :func:`check_image`.
        max_pixels: Largest number of pixels that an image may have.
        backend_args: See :func:`read_coco`, also for the errors raised.
        loading: How the pipeline loads images.
        classes: Class names of the config; None if there is none.
        evaluation: Whether detections are to be compared with the content. Then boxes
            under a pixel stay, as mmdet counts them, and objects with ``ignore`` are
            crowds, as mmdet doesn't train them.
        content: The annotations, if they were not written to ``path``.
        places: File and place of the objects that come from other files, by their ids.

    Returns:
        The content without what can't be used, the problems, and the size of the data
        set.
    """
    problems: list[Problem] = []
    if content is None:
        content, problems = read_coco(path, backend_args)
    size = f'{len(content["images"])} images, {len(content["annotations"])} objects'
    if content['annotations'] or evaluation:
        found = _wrong_categories(content['categories'], classes, evaluation)
        problems += [Problem(path, 'categories', *found)] if found else []
    known: Images = {}
    for entry in content['images']:
        file, found = path, _wrong_image(entry, known, max_pixels)
        if found is None and image_folder is not None:
            file = os.path.join(image_folder, entry['file_name'])
            annotated = entry['width'], entry['height']
            found = check_image(file, annotated, images, max_pixels, loading)
        if found is None:
            known[entry['id']] = entry
            continue
        where = 'images'
        if isinstance(entry, dict):
            where = f'image {entry.get("id")!r} ({entry.get("file_name")})'
            if is_id(entry.get('id')):
                known.setdefault(entry['id'], {})
        problems.append(Problem(file, where, *found))
    for name, ids in (('images', known), ('categories', category_ids(content))):
        if len({isinstance(number, str) for number in ids}) > 1:
            detail = "CocoMetric can't sort texts and numbers"
            problems.append(Problem(path, name, *finding('ids of two types', detail)))
    objects, more = _check_objects(content, path, known, evaluation, places or {})
    good = dict(images=[e for e in known.values() if e], annotations=objects)
    return dict(content, **good), problems + more, size


def is_id(value: Any) -> bool:
    """Return whether a value can be an id: a number or a text."""
    return isinstance(value, (int, float, str))


def category_ids(content: dict) -> set:
    """Return the ids of the categories."""
    return {category['id'] for category in content['categories']}


def _wrong_categories(
    categories: list[dict], classes: Optional[Sequence[str]], every: bool
) -> Finding:
    by_id = {category['id']: category['name'] for category in categories}
    # mmdet looks a category's name up by its id.
    names = [by_id[category['id']] for category in categories]
    if classes is not None:
        return check_classes(names, classes, every)
    twice = {repr(name) for name in names if names.count(name) > 1}
    if not twice:
        return None
    return finding('category twice', f'{", ".join(sorted(twice))} by name or id')


def _check_objects(
    content: dict, path: str, known: Images, evaluation: bool, places: Places
) -> tuple[list[dict], list[Problem]]:
    """Return the objects that can be used, and the problems."""
    good: list[dict] = []
    problems: list[Problem] = []
    ids: set = set()
    categories = category_ids(content)
    for entry in content['annotations']:
        found = list(_wrong_object(entry, known, categories, ids))
        file, where = path, 'annotations'
        if isinstance(entry, dict):
            image = entry.get('image_id')
            name = known.get(image, {}).get('file_name') if is_id(image) else None
            where = f'object {entry.get("id")!r} of {name or image}'
            if places:
                file, where = places[entry['id']]
        problems += [Problem(file, where, *each) for each in found]
        usable = all(effect in (*HARMLESS, RENUMBERED) for _, _, effect in found)
        small = evaluation and any(kind == 'box under a pixel' for kind, _, _ in found)
        if (usable or small) and known[entry['image_id']]:
            good.append(entry)
            if evaluation and entry.get('ignore'):
                entry['iscrowd'] = 1
    if any(p.kind.endswith('object id') for p in problems):
        for number, entry in enumerate(good, start=1):
            entry['id'] = number
    return good, problems


def _malformed(entry: Any, *fields: str) -> str:
    """Show an entry that is no dictionary, or name the fields that it lacks."""
    if not isinstance(entry, dict):
        return repr(entry)
    absent = [name for name in fields if entry.get(name) is None]
    odd = [
        name for name in fields if name.endswith('id') and not is_id(entry.get(name))
    ]
    return f'no {", ".join(absent or odd)}' if absent or odd else ''


def _wrong_image(entry: Any, known: Images, max_pixels: int) -> Finding:
    malformed = _malformed(entry, 'id', 'file_name', 'width', 'height')
    if malformed:
        return finding('malformed image entry', malformed)
    if entry['id'] in known:
        name = known[entry['id']].get('file_name', 'an image left out')
        return finding('duplicate image id', f'already used by {name}')
    size = entry['width'], entry['height']
    if not all(is_number(v) and v > 0 for v in size):
        return finding('malformed image entry', f'width, height = {size}')
    if not isinstance(entry['file_name'], str):
        return finding('malformed image entry', f'file_name = {entry["file_name"]!r}')
    return check_pixels(*size, max_pixels)


def _wrong_object(
    entry: Any, known: Images, categories: set, ids: set
) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with an object. Remember its id, and mend its fields."""
    malformed = _malformed(entry, 'image_id', 'category_id')
    box = None if malformed else entry.get('bbox')
    if not isinstance(box, list) or len(box) != 4:
        yield finding('malformed object', malformed or f'bbox = {box!r}')
        return
    image = known.get(entry['image_id'])
    if image is None:
        yield finding('unknown image', f'image_id = {entry["image_id"]!r}')
        return
    if not image:
        return  # reported already, with its image
    if entry['category_id'] not in categories:
        yield finding('unknown category', f'category_id = {entry["category_id"]!r}')
        return
    found = _wrong_box(box, (image['width'], image['height']))
    if found is not None:
        yield found
    if found is None or found[2] == KEPT or found[0] == 'box under a pixel':
        yield from _wrong_fields(entry, ids)


def _wrong_box(box: list, size: tuple[float, float]) -> Finding:
    corners = box
    if all(is_number(v) for v in box):
        x, y, w, h = box
        corners = [x, y, x + w, y + h]
    found = check_box(corners, size)
    if (found is None or found[2] == KEPT) and min(box[2:]) < 1:
        # mmdet drops such objects from training silently.
        return finding('box under a pixel', f'bbox = {box}')
    return found


def _wrong_fields(entry: dict, ids: set) -> Iterator[tuple[str, str, str]]:
    """Check id, area and flags of an object, and fill in what is missing."""
    number: Any = entry.get('id')
    area: Any = entry.get('area')
    if is_number(number) and number in ids:
        detail = 'another object has it too; `check_data FILE --write NEW` renumbers'
        yield finding('duplicate object id', detail)
    elif not is_number(number) or number == 0:
        # COCO's evaluation marks a match with the id, and 0 as no match.
        yield finding('unusable object id', f'id = {number!r} is no number from 1')
    else:
        ids.add(number)
    if not is_number(area) or area <= 0:
        entry['area'] = entry['bbox'][2] * entry['bbox'][3]
        yield finding('object without area field', f'area = {area!r}')
    for name in ('iscrowd', 'ignore'):
        value = entry.get(name, None if name == 'iscrowd' else 0)
        if not isinstance(value, bool) and not is_number(value):
            yield finding(f'object without {name} field', f'{name} = {value!r}')
            entry[name] = as_flag(value)
    if entry.get('ignore'):
        detail = 'mmdet leaves it out of training, but its CocoMetric counts it'
        yield finding('object to ignore', detail)
