"""mmdet's data sets, which look at their data before they use them."""

import json
import logging
import os
import tempfile
from typing import Any, Union

from mmdet.datasets import CocoDataset, VOCDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from .check_coco import check_coco, read_coco
from .check_image import LEVELS, MAX_PIXELS, check_image
from .check_voc import check_voc_file, read_list
from .problems import IMAGE, KEPT, DataError, Problem, summary


class CheckedMixin:
    """Checks annotations and images when the data set is built, and while it loads.

    In training, what is wrong is named, counted and left out, or the run is
    refused. While validating and testing an image can't be left out without
    changing the result, so a bad one is refused there; bad objects are named.

    Args:
        on_bad_data: ``drop`` goes on without what is bad; ``refuse`` stops.
        check_images: ``no``, ``quick`` (both ends of every file; 0.2 ms each) or
            ``full`` (decodes every image). An image that fails to load later on
            is named in any case.
        max_pixels: An image with more pixels than this is bad.
        args: As the data set's own.
        kwargs: As the data set's own.

    Attributes:
        problems: What was found.
    """

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

    def tell(self, problems: list[Problem]) -> None:
        """Log what is wrong, or stop.

        Raises:
            DataError: If the run is to be refused.
        """
        self.problems += problems
        serious = [p for p in problems if p.effect != KEPT]
        fatal = [p for p in serious if p.effect == IMAGE and self.test_mode]
        if serious and self.on_bad_data == 'refuse':
            raise DataError(
                f'{self.ann_file}: {len(serious)} problems, and '
                f"on_bad_data='refuse':\n{summary(serious)}\n"
                "on_bad_data='drop' goes on without them"
            )
        if fatal:
            raise DataError(
                f'{self.ann_file}: {len(fatal)} images to be evaluated are bad, and '
                f'leaving them out would change the result:\n{summary(fatal)}'
            )
        if problems:
            print_log(
                f'{self.ann_file}: {len(problems)} problems:\n{summary(problems)}',
                logger='current',
                level=logging.WARNING,
            )

    def prepare_data(self, idx: int) -> Any:
        """Load and augment an image; one that can't be loaded is named."""
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx).get('img_path', '')
            found = check_image(path, None, 'full', self.max_pixels)
            if found is None:
                raise  # not the image's fault
            problem = Problem(found[0], path, 'image', found[1], IMAGE)
            if self.test_mode or self.on_bad_data == 'refuse':
                raise DataError(str(problem)) from error
            self.problems.append(problem)
            print_log(
                f'{problem}: another is taken', logger='current', level=logging.WARNING
            )
            return None


@DATASETS.register_module()
class CheckedCocoDataset(CheckedMixin, CocoDataset):
    """mmdet's CocoDataset, checked.

    One line turns it on: ``train_dataloader = dict(dataset=dict(type=
    'CheckedCocoDataset'))``; options as in :class:`CheckedMixin`.
    """

    def load_data_list(self) -> list[dict]:
        """Check the annotation file, then load what is good in it."""
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            content = read_coco(path)
        counts = {field: len(content[field]) for field in ('images', 'annotations')}
        content, problems = check_coco(
            content,
            self.ann_file,
            self.data_prefix.get('img', ''),
            self.check_images,
            self.max_pixels,
        )
        self.tell(problems)
        unchanged = all(len(content[field]) == n for field, n in counts.items())
        if unchanged and all(p.kind != 'object without area field' for p in problems):
            return super().load_data_list()
        if not content['images']:
            raise DataError(
                f'{self.ann_file}: not one image can be used:\n{summary(problems)}'
            )
        original = self.ann_file
        with tempfile.TemporaryDirectory() as folder:
            self.ann_file = os.path.join(folder, os.path.basename(original))
            with open(self.ann_file, 'w') as file:
                json.dump(content, file)
            try:
                return super().load_data_list()
            finally:
                self.ann_file = original


class CheckedXMLMixin(CheckedMixin):
    """Checks VOC files one by one as they are parsed."""

    def load_data_list(self) -> list[dict]:
        """Check and load; an image that can't be used is left out."""
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            names = read_list(path)
        self._found: list[Problem] = []
        loaded = [info for info in super().load_data_list() if info is not None]
        seen: set[str] = set()
        data_list = []
        for info in loaded:
            if info['img_id'] in seen:
                detail = 'it is in the list twice'
                self._found.append(
                    Problem(
                        'duplicate image id',
                        self.ann_file,
                        info['img_id'],
                        detail,
                        IMAGE,
                    )
                )
                continue
            seen.add(info['img_id'])
            data_list.append(info)
        self.tell(self._found)
        if not data_list:
            raise DataError(
                f'{self.ann_file}: not one of {len(names)} images can be used:\n'
                f'{summary(self._found)}'
            )
        return data_list

    def parse_data_info(self, img_info: dict) -> Union[dict, None]:
        """Parse a VOC file without its bad objects; None if the image is bad."""
        tree, problems = check_voc_file(
            img_info['xml_path'],
            os.path.join(self.sub_data_root, img_info['file_name']),
            self._metainfo['classes'],
            self.check_images,
            self.max_pixels,
        )
        self._found += problems
        if tree is None:
            return None
        if not problems:
            return super().parse_data_info(img_info)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, os.path.basename(img_info['xml_path']))
            tree.write(path)
            info = super().parse_data_info(dict(img_info, xml_path=path))
        return dict(info, xml_path=img_info['xml_path'])


@DATASETS.register_module()
class CheckedXMLDataset(CheckedXMLMixin, XMLDataset):
    """mmdet's XMLDataset, checked; options as in :class:`CheckedMixin`."""


@DATASETS.register_module()
class CheckedVOCDataset(CheckedXMLMixin, VOCDataset):
    """mmdet's VOCDataset, checked; options as in :class:`CheckedMixin`."""
