"""Read data sets in the layout of Ultralytics' YOLO: data.yaml, images/, labels/."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

import yaml
from globox import BoundingBox

from .check_image import MAX_PIXELS, inspect_image
from .convert import Collector, Converted, relative_to_common_folder
from .problems import DataError

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
SPLITS = ('train', 'val', 'test')


class YoloData:
    """The content of a ``data.yaml``.

    Args:
        source: The file, or the folder that contains it.

    Attributes:
        path: The file.
        names: Class names by class number.
        splits: Names of the splits that it has, such as ``train``.

    Raises:
        DataError: If the file is missing, is not YAML, or names no classes or images.
    """

    def __init__(self, source: Union[str, Path]) -> None:
        self.path = Path(source)
        if self.path.is_dir():
            self.path = self.path / 'data.yaml'
        try:
            self.fields = yaml.safe_load(self.path.read_text('utf-8-sig'))
        except FileNotFoundError as error:
            raise DataError(f'{self.path}: there is no such file') from error
        except (ValueError, yaml.YAMLError) as error:
            raise DataError(f'{self.path}: not readable YAML ({error})') from error
        if not isinstance(self.fields, dict):
            raise DataError(f'{self.path}: not a data.yaml of YOLO: no field names')
        self.names = self._names(self.fields.get('names'))
        self.splits = [name for name in SPLITS if self.fields.get(name)]
        if not self.splits:
            raise DataError(f'{self.path}: none of the fields {", ".join(SPLITS)}')

    def _names(self, names: Any) -> list[str]:
        if isinstance(names, dict):
            numbers = list(range(len(names)))
            if sorted(names, key=str) != sorted(numbers, key=str):
                raise DataError(
                    f'{self.path}: names must be numbered from 0 without gaps, got '
                    f'{", ".join(map(str, names))}'
                )
            names = [names[number] for number in numbers]
        if not isinstance(names, list) or not names:
            raise DataError(
                f'{self.path}: names={names!r} must be a list of class names, or map '
                'class numbers to them'
            )
        return [str(name) for name in names]

    def images(self, split: str) -> list[Path]:
        """Return the image files of a split.

        Raises:
            DataError: If there is no such split, folder or list, or it has no image.
        """
        if split not in self.splits:
            raise DataError(
                f'{self.path}: no field {split!r}; there are {", ".join(self.splits)}'
            )
        entries = self.fields[split]
        found: dict[Path, None] = {}
        for entry in entries if isinstance(entries, list) else [entries]:
            found.update(dict.fromkeys(self._images(self._locate(str(entry)))))
        if not found:
            raise DataError(f'{self.path}: {split}={entries!r} has no image')
        return list(found)

    def _locate(self, entry: str) -> Path:
        """Find a folder or list as Ultralytics does, from ``path``."""
        root = self.path.parent / str(self.fields.get('path') or '')
        # Roboflow writes ../train/images for a folder beside data.yaml.
        candidates = [root / entry, root / entry.removeprefix('../')]
        for path in candidates:
            if path.exists():
                return path
        raise DataError(
            f'{self.path}: {candidates[0]} does not exist; correct {entry!r}, or the '
            f"field 'path', which starts from the folder of {self.path.name}"
        )

    def _images(self, path: Path) -> Iterator[Path]:
        if path.is_dir():
            for file in sorted(path.rglob('*')):
                if file.suffix.lower() in SUFFIXES and not file.name.startswith('.'):
                    yield file
            return
        for line in path.read_text('utf-8-sig').split('\n'):
            if line.strip():
                yield path.parent / line.strip()

    def values_of_keypoints(self) -> int:
        """Return the number of values that follow the box of a pose label."""
        shape = self.fields.get('kpt_shape') or [0]
        return math.prod(shape) if isinstance(shape, list) else 0


def read_yolo(data: YoloData, split: str, max_pixels: int = MAX_PIXELS) -> Converted:
    """Read one split of a YOLO data set.

    Labels are found as Ultralytics finds them: the last folder ``images`` in the path
    of an image becomes ``labels``, and an image without a file there has no object. A
    polygon becomes the box around it, and keypoints are left out.

    Args:
        data: The data set.
        split: Name of the split.
        max_pixels: Largest number of pixels that an image may have.

    Returns:
        The data set in COCO's form. An image that can't be read, and a line that is no
        box of a known class, are among its problems.

    Raises:
        DataError: If data.yaml does not fit, or no image has a label file.
    """
    collector = Collector(data.names)
    paths = data.images(split)
    folder, names = relative_to_common_folder(paths)
    labels = {path: label_path(path) for path in paths}
    if not any(path.is_file() for path in labels.values()):
        raise DataError(
            f'{data.path}: no image of {split!r} has labels; those of {paths[0]} '
            f'should be in {labels[paths[0]]}'
        )
    keypoints = data.values_of_keypoints()
    for name, (path, label) in zip(names, labels.items()):
        wrong, size = inspect_image(str(path), 'quick', max_pixels)
        if wrong is not None:
            collector.leave_out(str(path), 'image', *wrong[:2])
        elif collector.add_image(name, size, str(path)) and label.is_file():
            _read_labels(collector, name, size, label, keypoints)
    return collector.finish(folder)


def label_path(image: Path) -> Path:
    """Return the label file of an image."""
    parts = list(image.with_suffix('.txt').parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == 'images':
            parts[index] = 'labels'
            break
    return Path(*parts)


def _read_labels(
    collector: Collector, name: str, size: Any, path: Path, keypoints: int
) -> None:
    parse = functools.partial(_parse, size=size, names=collector.names)
    lines = path.read_text('utf-8-sig', errors='replace').split('\n')
    for number, line in enumerate(lines, start=1):
        values = line.split()
        if keypoints and len(values) == 5 + keypoints:
            values = values[:5]
        where = f'line {number}'
        wrong = _wrong_line(values, len(collector.names)) if values else None
        if wrong is not None:
            collector.leave_out(str(path), where, *wrong)
        elif values:
            collector.add_box(name, parse, ' '.join(values), str(path), where)


def _wrong_line(values: list[str], num_classes: int) -> Optional[tuple[str, str]]:
    """Return kind and detail of what is wrong with the values of a line."""
    line = ' '.join(values)
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        return 'malformed object', (
            f'{line!r} has {len(values)} values; a box has 5 (class, x and y of the '
            'centre, width, height), and a polygon has its class and 3 or more points'
        )
    try:
        label, *numbers = map(float, values)
    except ValueError:
        return 'box that is no number', repr(line)
    if not all(map(math.isfinite, numbers)):
        return 'box that is no number', repr(line)
    if label not in range(num_classes):
        known = f'the classes of data.yaml are 0 to {num_classes - 1}'
        return 'unknown category', f'class {values[0]}; {known}'
    return None


def _parse(line: str, size: tuple[int, int], names: list[str]) -> BoundingBox:
    is_box = len(line.split()) == 5
    read = BoundingBox.from_yolo_v5 if is_box else BoundingBox.from_yolo_seg
    box = read(line, image_size=size)
    box.label = names[int(float(box.label))]
    return box
