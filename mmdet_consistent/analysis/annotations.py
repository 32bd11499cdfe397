"""Ground truth of a dataset, in COCO form and as arrays an image."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray


class ImageTruth(NamedTuple):
    """Ground truth of one image; G objects.

    Attributes:
        boxes: (G, 4) float64, xyxy in pixels of the original image.
        labels: (G,) int64, indices into the classes.
        crowd: (G,) bool; a crowd region is neither found nor missed.
    """

    boxes: NDArray
    labels: NDArray
    crowd: NDArray

    def countable(self) -> 'ImageTruth':
        """The objects that a detector should find: no crowd, some area."""
        size = self.boxes[:, 2:] - self.boxes[:, :2]
        keep = ~self.crowd & (size > 0).all(axis=1)
        return ImageTruth(self.boxes[keep], self.labels[keep], self.crowd[keep])


EMPTY = ImageTruth(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool))


class GroundTruth:
    """The annotations of a split, restricted to the classes of a model.

    Args:
        coco: A COCO dictionary: ``images``, ``annotations``, ``categories``.
        classes: Class names by label; default: all categories, by id.
        image_root: Folder of the images, for pictures of single cases.

    Raises:
        ValueError: If ``coco`` is not in COCO form or a class isn't in it.
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
                    f'the annotations have no {key!r}; a COCO file has images, '
                    f'annotations and categories, this one has {sorted(coco)}'
                )
        id_of = {c['name']: c['id'] for c in coco['categories']}
        if classes is None:
            classes = sorted(id_of, key=id_of.get)
        unknown = [name for name in classes if name not in id_of]
        if unknown:
            raise ValueError(
                f'classes {unknown} are not in the annotations, which have '
                f'{sorted(id_of)}; set `metainfo` of the dataset in the config'
            )
        self.classes = list(classes)
        self.cat_ids = [id_of[name] for name in self.classes]
        self.image_root = image_root
        self._number_of: dict[Any, int] = {}
        self.images = {image['id']: image for image in coco['images']}
        label_of = {cat_id: label for label, cat_id in enumerate(self.cat_ids)}
        self.label_of = label_of
        self._categories = [c for c in coco['categories'] if c['id'] in label_of]
        self._annotations: dict[Any, list[dict]] = {}
        for annotation in coco['annotations']:
            if annotation['category_id'] in label_of:
                of_image = self._annotations.setdefault(annotation['image_id'], [])
                of_image.append(annotation)

    @classmethod
    def from_file(cls, path: Path, **kwargs: Any) -> 'GroundTruth':
        """Read a COCO annotation file."""
        try:
            coco = json.loads(Path(path).read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f'{path} is not a readable COCO file: {error}') from error
        try:
            return cls(coco, **kwargs)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error

    @classmethod
    def from_dataset(cls, dataset: Any) -> 'GroundTruth':
        """Take the ground truth of an mmdet dataset.

        A COCO file is read as it is, so that areas and crowds are those that
        mmdet's own ``CocoMetric`` sees; other datasets are converted.
        """
        classes = dataset.metainfo['classes']
        prefix = getattr(dataset, 'data_prefix', {}) or {}
        root = Path(prefix.get('img') or prefix.get('img_path') or '.')
        ann_file = getattr(dataset, 'ann_file', '')
        if hasattr(dataset, 'cat_ids') and str(ann_file).endswith('.json'):
            return cls.from_file(ann_file, classes=classes, image_root=root)
        coco = dict(
            images=[],
            annotations=[],
            categories=[dict(id=i, name=name) for i, name in enumerate(classes)],
        )
        number_of = {}
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            # COCO's evaluation wants numbers; other datasets have names, too.
            number_of[info['img_id']] = index
            image = dict(
                id=index,
                file_name=str(Path(info['img_path']).absolute()),
                width=info['width'],
                height=info['height'],
            )
            coco['images'].append(image)
            for instance in info['instances']:
                x1, y1, x2, y2 = (float(v) for v in instance['bbox'])
                annotation = dict(
                    id=len(coco['annotations']) + 1,
                    image_id=index,
                    category_id=int(instance['bbox_label']),
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=int(instance.get('ignore_flag', 0)),
                )
                coco['annotations'].append(annotation)
        truth = cls(coco, classes=classes, image_root=root)
        truth._number_of = number_of
        return truth

    def image_id(self, img_id: Any) -> int:
        """The number here of an image that the dataset calls ``img_id``."""
        return self._number_of.get(img_id, img_id)

    def of_image(self, image_id: Any) -> ImageTruth:
        """The ground truth of one image, in the order of the file."""
        annotations = self._annotations.get(image_id)
        if not annotations:
            return EMPTY
        boxes = np.array([a['bbox'] for a in annotations], dtype=np.float64)
        boxes[:, 2:] += boxes[:, :2]
        labels = [self.label_of[a['category_id']] for a in annotations]
        crowd = [bool(a.get('iscrowd', 0)) for a in annotations]
        return ImageTruth(boxes, np.array(labels), np.array(crowd))

    def to_coco(self, image_ids: Sequence) -> dict:
        """A COCO dictionary of these images and the model's classes alone."""
        annotations = []
        for image_id in image_ids:
            for annotation in self._annotations.get(image_id, []):
                box = annotation['bbox']
                whole = dict(area=box[2] * box[3], iscrowd=0)
                annotations.append({**whole, **annotation})
        return dict(
            info={},
            images=[self.images[image_id] for image_id in image_ids],
            annotations=annotations,
            categories=self._categories,
        )

    def image_path(self, image_id: Any) -> Path:
        """Where the image lies."""
        path = Path(self.images[image_id]['file_name'])
        return path if path.is_absolute() else (self.image_root or Path()) / path
