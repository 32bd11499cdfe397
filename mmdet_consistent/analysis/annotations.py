"""Annotations of a data set, in COCO form and as arrays per image."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np
from mmengine.fileio import get
from numpy.typing import NDArray

from ..datasets.check_coco import check_coco_set
from ..datasets.checked import CheckedMixin
from ..datasets.problems import as_flag, is_number


class ImageObjects(NamedTuple):
    """Annotated objects of one image (G objects).

    Attributes:
        boxes: (G, 4) float64, xyxy in pixels of the original image.
        labels: (G,) int64, indices into the classes.
        crowd: (G,) bool; a crowd region counts neither as found nor as missed.
    """

    boxes: NDArray
    labels: NDArray
    crowd: NDArray

    def where(self, keep: NDArray) -> 'ImageObjects':
        """Return the objects at which the mask ``keep`` (G,) is true."""
        return ImageObjects(*(column[keep] for column in self))

    def countable(self) -> 'ImageObjects':
        """Return the objects to be found: those that are neither crowds nor empty."""
        has_area = (self.boxes[:, 2:] > self.boxes[:, :2]).all(axis=1)
        return self.where(~self.crowd & has_area)


class AnnotatedSet:
    """The annotations of a split, restricted to the classes of a detector.

    Args:
        coco: COCO dictionary with ``images``, ``annotations`` and ``categories``.
        classes: Class names by label; default: all categories, sorted by id.
        image_root: Folder of the images, needed to show single cases.

    Attributes:
        number_of: Id of an image in the annotations to its id here: the same, or its
            number where ids are not integers.
        order: Ids of the images in the order of the data set.

    Raises:
        ValueError: If ``coco`` is not in COCO form or lacks one of the classes.
    """

    def __init__(
        self,
        coco: dict,
        classes: Optional[Sequence[str]] = None,
        image_root: Optional[Path] = None,
    ) -> None:
        for key in ('images', 'annotations', 'categories'):
            if key not in coco:
                raise ValueError(
                    f'no {key!r} in the annotations; a COCO file has images, '
                    'annotations and categories'
                )
        id_of = {c['name']: c['id'] for c in coco['categories']}
        self.classes = list(classes or sorted(id_of, key=lambda name: id_of[name]))
        unknown = [name for name in self.classes if name not in id_of]
        if unknown:
            raise ValueError(
                f'classes {unknown} are not in the annotations, which have '
                f'{sorted(id_of)}; set `metainfo` of the dataset in the config'
            )
        self.cat_ids = [id_of[name] for name in self.classes]
        self.label_of = {cat_id: label for label, cat_id in enumerate(self.cat_ids)}
        ids = [image['id'] for image in coco['images']]
        plain = all(isinstance(image_id, int) for image_id in ids)
        self.number_of = {x: x if plain else number for number, x in enumerate(ids)}
        self.order = list(self.number_of.values())
        self.images = {self.number_of[image['id']]: image for image in coco['images']}
        self.image_root = image_root
        self._annotations: dict[Any, list[dict]] = {}
        for item in coco['annotations']:
            number = self.number_of.get(item['image_id'])
            if item['category_id'] in self.label_of and number is not None:
                crowd = as_flag(item.get('iscrowd', 0))  # '0' may be text
                item = dict(item, image_id=number, iscrowd=crowd)
                self._annotations.setdefault(number, []).append(item)

    @classmethod
    def from_file(cls, path: Union[str, Path], **kwargs: Any) -> 'AnnotatedSet':
        """Read a COCO annotation file. Raise ``ValueError`` if it isn't one."""
        try:
            return cls(_read_json(path), **kwargs)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path} cannot be used: {error!r}') from error

    @classmethod
    def from_dataset(cls, dataset: Any) -> 'AnnotatedSet':
        """Read the annotations of an mmdet dataset.

        A COCO file is read directly, so that areas and crowds are the ones that
        mmdet's ``CocoMetric`` uses, or :class:`~mmdet_consistent.CheckedCocoMetric`
        for a checked data set. Annotations of any other dataset are converted;
        so are joined sets, whose images are numbered, as their ids may repeat.

        Raises:
            ValueError: If labels have no names, or different ones in joined sets.
        """
        if hasattr(dataset, 'cat_ids'):  # mmdet's CocoDataset and its like
            folders = dataset.data_prefix
            root = Path(folders.get('img') or folders.get('img_path') or '.')
            if isinstance(dataset, CheckedMixin):  # as CheckedCocoMetric reads it
                file, backend = dataset.ann_file, dataset.backend_args
                coco = check_coco_set(file, backend_args=backend, evaluation=True)[0]
            else:
                coco = _read_json(dataset.ann_file)
            truth = cls(coco, label_names(dataset, coco), root)
            infos = map(dataset.get_data_info, range(len(dataset)))
            truth.order = [truth.number_of[info['img_id']] for info in infos]
            return truth
        classes = label_names(dataset)
        images, annotations = [], []
        for number in range(len(dataset)):
            info = dataset.get_data_info(number)
            path = str(Path(info['img_path']).absolute())
            size = dict(width=info['width'], height=info['height'])
            images.append(dict(id=number, file_name=path, **size))
            for instance in info['instances']:
                x1, y1, x2, y2 = map(float, instance['bbox'])
                annotations.append(
                    dict(
                        image_id=number,
                        category_id=int(instance['bbox_label']),
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        iscrowd=int(instance.get('ignore_flag', 0)),
                    )
                )
        categories = [dict(id=i, name=name) for i, name in enumerate(classes)]
        coco = dict(images=images, annotations=annotations, categories=categories)
        return cls(coco, classes=classes)

    def of_image(self, image_id: Any) -> ImageObjects:
        """Return the objects of one image, in the order of the file."""
        annotations = self._annotations.get(image_id, [])
        boxes = np.array([a['bbox'] for a in annotations], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [self.label_of[a['category_id']] for a in annotations]
        crowd = [a['iscrowd'] for a in annotations]
        return ImageObjects(boxes, np.array(labels, np.int64), np.array(crowd, bool))

    def num_objects(self, image_ids: Sequence) -> NDArray:
        """Return the number of objects of each class (C,) int64, crowds excluded."""
        images = map(self.of_image, image_ids)
        labels = [label for image in images for label in image.labels[~image.crowd]]
        return np.bincount(np.array(labels, np.int64), minlength=len(self.classes))

    def to_coco(self, image_ids: Sequence) -> dict:
        """Return a COCO dictionary of some images and the detector's classes."""
        annotations: list[dict] = []
        for image_id in image_ids:
            for item in self._annotations.get(image_id, []):
                # COCO takes an id of 0 for none, and joined sets repeat theirs.
                item = dict(item, id=len(annotations) + 1)
                if not is_number(item.get('area')):
                    item['area'] = item['bbox'][2] * item['bbox'][3]
                annotations.append(item)
        categories = [dict(id=i, name=n) for i, n in zip(self.cat_ids, self.classes)]
        images = [dict(self.images[image_id], id=image_id) for image_id in image_ids]
        return dict(
            info={}, images=images, annotations=annotations, categories=categories
        )

    def image_path(self, image_id: Any) -> Path:
        """Return the path of an image file."""
        return (self.image_root or Path()) / self.images[image_id]['file_name']


def _read_json(path: Union[str, Path]) -> dict:
    """Read a file, also one that mmengine fetches, or that an editor gave a BOM."""
    return json.loads(get(path).decode('utf-8-sig'))


def label_names(dataset: Any, coco: Optional[dict] = None) -> list[str]:
    """Return the class names of an mmdet dataset by label.

    mmdet's ``CocoDataset`` numbers classes in the order of the file, not of
    ``metainfo``. A class that the file lacks, or has twice, shifts all later labels.

    Args:
        dataset: The dataset, or a wrapper around some.
        coco: Content of its annotation file, if that was read before.

    Raises:
        ValueError: If that is so, or the parts of joined sets have different names.
    """
    parts = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if parts != [None]:
        first, *others = map(label_names, parts)
        if any(other != first for other in others):
            raise ValueError(
                f'{type(dataset).__name__}: a label means another class in each of its '
                f'sets, {[first, *others]}: give their files the same "categories"'
            )
        return first
    classes = list(dataset.metainfo['classes'])
    cat_ids = getattr(dataset, 'cat_ids', None)
    if cat_ids is None:
        return classes
    categories = (coco or _read_json(dataset.ann_file))['categories']
    name_of = {category['id']: category['name'] for category in categories}
    names = [name_of[cat_id] for cat_id in cat_ids]
    if sorted(names) != sorted(classes):
        raise ValueError(
            f'{dataset.ann_file} has the classes {names} of those in the metainfo of '
            f'the dataset, {classes}: use the names under "categories", each once'
        )
    return names
