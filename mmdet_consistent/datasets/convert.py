"""COCO annotations from the boxes that globox reads in other formats."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

try:
    from globox import Annotation, AnnotationSet, BoundingBox, ParsingError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "other formats are read with globox: pip install 'mmdet_consistent[convert]'"
    ) from error

from .check_coco import Places
from .kinds import finding
from .problems import DataError, Problem


class Converted(NamedTuple):
    """A data set in COCO's form.

    Attributes:
        content: The annotations. File names are relative to ``image_folder``.
        image_folder: Folder of the image files.
        problems: Problems of images and objects that are not in ``content``.
        places: File and place of the objects that are, by their ids.
    """

    content: dict
    image_folder: str
    problems: list[Problem]
    places: Places


class Collector:
    """Collects images and boxes, and the problems of those that can't be used.

    Args:
        names: Class names in the order of their ids, which count from 1.

    Raises:
        DataError: If a class name is there twice.
    """

    def __init__(self, names: Sequence[str]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f'two classes have the same name: {", ".join(twice)}')
        self.names = list(names)
        self.images: dict[str, Annotation] = {}
        self.places: dict[str, list[tuple[str, str]]] = {}
        self.problems: list[Problem] = []

    def leave_out(self, file: str, where: str, kind: str, detail: str) -> None:
        """Record the problem of an image or object that can't be used.

        Args:
            file: File that has the problem.
            where: Place in the file, such as ``line 3``.
            kind: One of the kinds of problems, see :data:`KINDS`.
            detail: The value, and what it should be.
        """
        self.problems.append(Problem(file, where, *finding(kind, detail)))

    def add_image(
        self, name: str, size: tuple[Any, Any], file: str, where: str = 'image'
    ) -> bool:
        """Add an image, and return whether it can be used.

        Args:
            name: Name of the image file, relative to the image folder.
            size: Width and height in pixels.
            file: See :meth:`leave_out`.
            where: See there.
        """
        try:
            image = Annotation(name, (int(size[0]), int(size[1])))
        except (AssertionError, TypeError, ValueError):
            detail = f'width, height = {size} of {name}'
            self.leave_out(file, where, 'malformed image entry', detail)
            return False
        if name in self.images:
            self.leave_out(file, where, 'duplicate image id', f'{name} is there twice')
            return False
        self.images[name] = image
        self.places[name] = []
        return True

    def add_box(
        self,
        name: str,
        parse: Callable[..., BoundingBox],
        content: Any,
        file: str,
        where: str,
    ) -> None:
        """Add an object to an image.

        Args:
            name: Name of the image.
            parse: Function of globox that turns the content into a box.
            content: The object as the file has it.
            file: See :meth:`leave_out`.
            where: See there.
        """
        try:
            box = parse(content)
        except AssertionError:  # globox asserts the order of the corners
            self.leave_out(file, where, 'inverted box', _shown(content))
        except (ParsingError, KeyError, TypeError, ValueError):
            self.leave_out(file, where, 'malformed object', _shown(content))
        else:
            if box.label in self.names:
                self.images[name].add(box)
                self.places[name].append((file, where))
                return
            detail = f'{box.label!r}; known classes are {", ".join(self.names)}'
            self.leave_out(file, where, 'unknown category', detail)

    def finish(self, image_folder: str) -> Converted:
        """Return the data set, with boxes rounded to hundredths of a pixel."""
        content = AnnotationSet(self.images.values()).to_coco(
            label_to_id={name: i for i, name in enumerate(self.names, start=1)},
            imageid_to_id={name: i for i, name in enumerate(self.images, start=1)},
        )
        for number, entry in enumerate(content['annotations'], start=1):
            # COCO's evaluation takes the id 0, from which globox counts, as no match.
            entry['id'] = number
            entry['bbox'] = [round(value, 2) for value in entry['bbox']]
            entry['area'] = round(entry['area'], 2)
        places = [place for name in self.images for place in self.places[name]]
        numbered = dict(enumerate(places, start=1))
        return Converted(content, image_folder, self.problems, numbered)


def relative_to_common_folder(paths: Sequence[Path]) -> tuple[str, list[str]]:
    """Return the deepest folder that contains all files, and their names in it."""
    if len({path.is_absolute() for path in paths}) > 1:
        paths = [path.absolute() for path in paths]
    folder = os.path.commonpath([os.path.normpath(path.parent) for path in paths])
    return folder, [Path(os.path.relpath(p, folder)).as_posix() for p in paths]


def _shown(content: Any) -> str:
    """Return the text of a line, XML element or JSON value."""
    attributes = getattr(content, 'attrib', content)
    return attributes if isinstance(attributes, str) else repr(attributes)
