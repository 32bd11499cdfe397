"""mmdet's data sets, with a check of their data."""

import json
import logging
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sized
from typing import Any, Optional

from mmdet.datasets import BaseDetDataset, CocoDataset, VOCDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from .check_coco import check_coco_set
from .check_image import LEVELS, MAX_PIXELS, check_image
from .check_voc import check_voc_file, read_list
from .problems import IMAGE, KEPT, DataError, Problem, summary


class CheckedMixin(BaseDetDataset):
    """Checks annotations and images when the data set is built, and while it loads.

    In training, what is bad is named, counted and left out, or the run is refused. In
    validation and testing, leaving out an image would change the result, so a bad
    image is refused; bad objects are named.

    Args:
        on_bad_data: ``drop`` leaves out what is bad; ``refuse`` stops.
        check_images: ``no``, ``quick`` (both ends of every file; 0.2 ms each) or
            ``full`` (decodes every image). An image that fails to load later on
            is named in any case.
        max_pixels: Largest number of pixels that an image may have.
        *args, **kwargs: Arguments of the data set.

    Attributes:
        problems: Problems found so far.

    Raises:
        ValueError: If there is no such option.
        DataError: If the run is refused.
    """

    ann_file: str

    def __init__(
        self,
        *args: Any,
        on_bad_data: str = 'drop',
        check_images: str = 'quick',
        max_pixels: int = MAX_PIXELS,
        **kwargs: Any,
    ) -> None:
        for name, value, known in (
            ('on_bad_data', on_bad_data, ('drop', 'refuse')),
            ('check_images', check_images, LEVELS),
        ):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, got {value!r}')
        self.on_bad_data = on_bad_data
        self.check_images = check_images
        self.max_pixels = max_pixels
        self.problems: list[Problem] = []
        super().__init__(*args, **kwargs)

    def report(self, problems: list[Problem], good: Sized) -> None:
        """Log the problems, or stop.

        Args:
            problems: New problems.
            good: Images that can be used.

        Raises:
            DataError: If the run is refused, or no image can be used.
        """
        self.problems += problems
        serious = [p for p in problems if p.effect != KEPT]
        fatal = [p for p in serious if p.effect == IMAGE and self.test_mode]
        why = 'images to evaluate are bad, and leaving them out would change the result'
        if self.on_bad_data == 'refuse':
            fatal = serious
            why = "problems, and on_bad_data='refuse' ('drop' leaves them out)"
        if fatal:
            raise DataError(f'{self.ann_file}: {len(fatal)} {why}:\n{summary(fatal)}')
        text = f'{self.ann_file}: {len(problems)} problems:\n{summary(problems)}'
        if not good:
            raise DataError(f'{text}\nnot one image can be used')
        if problems:
            print_log(text, 'current', logging.WARNING)

    def prepare_data(self, idx: int) -> Any:
        """Load and augment an image; if it can't be loaded, name and replace it."""
        try:
            return super().prepare_data(idx)
        except Exception:
            path = self.get_data_info(idx).get('img_path', '')
            found = check_image(path, None, 'full', self.max_pixels)
            if found is None:
                raise  # not the image's fault
            self.report([Problem(path, 'image', *found)], good=self)
            return None


@DATASETS.register_module()
class CheckedCocoDataset(CheckedMixin, CocoDataset):
    """mmdet's CocoDataset, checked.

    One line turns it on: ``train_dataloader = dict(dataset=dict(type=
    'CheckedCocoDataset'))``. See :class:`CheckedMixin` for its options.
    """

    def load_data_list(self) -> list[dict]:
        """Check the annotation file, then load what is good in it."""
        content, problems, _ = check_coco_set(
            self.ann_file,
            self.data_prefix.get('img', ''),
            self.check_images,
            self.max_pixels,
            self.backend_args,
        )
        self.report(problems, content['images'])
        if {p.kind for p in problems} <= {'box reaches out of the image'}:
            return super().load_data_list()  # mmdet clips it itself
        original = self.ann_file
        with tempfile.TemporaryDirectory() as folder:
            self.ann_file = os.path.join(folder, os.path.basename(original))
            with open(self.ann_file, 'w') as file:
                json.dump(content, file)
            try:
                return super().load_data_list()
            finally:
                self.ann_file = original


@DATASETS.register_module()
class CheckedXMLDataset(CheckedMixin, XMLDataset):
    """mmdet's XMLDataset, checked; see :class:`CheckedMixin` for its options."""

    def load_data_list(self) -> list[dict]:
        """Check and load the data, without the images that can't be used."""
        read_list(self.ann_file, self.backend_args)  # refuses an empty list
        self._found: list[Problem] = []
        loaded: dict[str, dict] = {}
        for info in filter(None, super().load_data_list()):
            if info['img_id'] in loaded:
                twice = 'duplicate image id', 'it is in the list twice', IMAGE
                self._found.append(Problem(self.ann_file, info['img_id'], *twice))
            loaded[info['img_id']] = info
        self.report(self._found, loaded)
        return list(loaded.values())

    def parse_data_info(self, img_info: dict) -> Optional[dict]:
        """Parse a VOC file without its bad objects; None if the image is bad."""
        root, problems = check_voc_file(
            img_info['xml_path'],
            os.path.join(self.sub_data_root, img_info['file_name']),
            self._metainfo['classes'],
            self.check_images,
            self.max_pixels,
        )
        self._found += problems
        if root is None:
            return None
        if not problems:
            return super().parse_data_info(img_info)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, os.path.basename(img_info['xml_path']))
            ElementTree.ElementTree(root).write(path)
            info = super().parse_data_info(dict(img_info, xml_path=path))
        return dict(info, xml_path=img_info['xml_path'])


@DATASETS.register_module()
class CheckedVOCDataset(CheckedXMLDataset, VOCDataset):
    """mmdet's VOCDataset, checked; see :class:`CheckedMixin` for its options."""
