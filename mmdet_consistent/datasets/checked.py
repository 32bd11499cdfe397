"""mmdet's data sets, with a check of their data."""

import logging
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sized
from typing import Any, Optional

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import BaseDetDataset, CocoDataset, VOCDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from .check_coco import check_coco_set, coco_api
from .check_image import LEVELS, MAX_PIXELS, Loading, check_image
from .check_voc import check_voc_file, find_image, read_list
from .kinds import HARMLESS, OBJECT, SET, STOPS_EVALUATION, finding
from .problems import DataError, Problem, summary


class CheckedMixin(BaseDetDataset):
    """Checks annotations and images when the data set is built, and while it loads.

    In training, what is bad is named, counted and left out or mended, or the run is
    refused. In validation and testing, leaving out an image would change the result,
    so a bad image is refused, and so are repeated annotation ids; bad objects are
    named. mmdet's ``CocoMetric`` reads the file itself: use ``CheckedCocoMetric``,
    which leaves out and mends the same.

    Args:
        on_bad_data: ``drop`` leaves out what is bad; ``refuse`` stops.
        check_images: ``no``, ``quick`` (both ends of every local file; 0.2 ms each) or
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
    backend_args: Optional[dict]

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

    @property
    def loading(self) -> Loading:
        """Settings by which the pipeline loads images."""
        return Loading.of(self.pipeline.transforms)

    def report(self, problems: list[Problem], good: Sized) -> None:
        """Log the problems, or stop.

        Args:
            problems: New problems.
            good: Images that can be used.

        Raises:
            DataError: If the run is refused, or no image can be used.
        """
        self.problems += problems
        serious = [p for p in problems if p.effect not in HARMLESS]
        stops = STOPS_EVALUATION if self.test_mode else (SET,)
        fatal = [p for p in serious if p.effect in stops]
        why = 'faults that would change the result'
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

    def filter_data(self) -> list[dict]:
        """Filter as mmdet does.

        Raises:
            DataError: If nothing is left to train on.
        """
        kept = super().filter_data()
        left_out = any(p.effect == OBJECT for p in self.problems)
        left_out &= not any(info['instances'] for info in self.data_list)
        if kept and (self.test_mode or not left_out):
            return kept
        raise DataError(
            f'{self.ann_file}: not one object can be used, or no image is left of '
            f'{len(self.data_list)} by filter_cfg={self.filter_cfg}; the classes are '
            f'{", ".join(self.metainfo["classes"])}\n{summary(self.problems)}'
        )

    def prepare_data(self, idx: int) -> Any:
        """Load and augment an image. If it can't be loaded, name and replace it."""
        try:
            return super().prepare_data(idx)
        except Exception as error:
            problem = self._image_at_fault(idx)
            if problem is None:
                raise
            if self.test_mode or self.on_bad_data == 'refuse':
                raise DataError(str(problem)) from error
            self.report([problem], good=self)
            return None

    def _image_at_fault(self, idx: int) -> Optional[Problem]:
        """Load an image again, and return what is wrong if that fails."""
        info = self.get_data_info(idx)
        for step in self.pipeline.transforms:
            if isinstance(step, LoadImageFromFile):
                try:
                    step.transform(info)
                except Exception as error:
                    path, reason = info['img_path'], f'{type(error).__name__}: {error}'
                    found = check_image(
                        path, None, 'full', self.max_pixels, self.loading
                    )
                    found = found or finding('unreadable image', reason)
                    return Problem(path, 'image', *found)
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
            loading=self.loading,
            classes=self.metainfo.get('classes'),
            evaluation=self.test_mode,
        )
        self.report(problems, content['images'])
        cls: Any = type(self)
        self.COCOAPI: Any = lambda path: coco_api(content, cls.COCOAPI)
        try:
            return super().load_data_list()
        finally:
            del self.COCOAPI


@DATASETS.register_module()
class CheckedXMLDataset(CheckedMixin, XMLDataset):
    """mmdet's XMLDataset, checked. See :class:`CheckedMixin` for its options."""

    def load_data_list(self) -> list[dict]:
        """Check and load the data, without the images that can't be used."""
        read_list(self.ann_file, self.backend_args)  # refuses an empty list
        self._found: list[Problem] = []
        loaded: dict[str, dict] = {}
        for info in filter(None, super().load_data_list()):
            if info['img_id'] in loaded:
                twice = finding('duplicate image id', 'it is in the list twice')
                self._found.append(Problem(self.ann_file, info['img_id'], *twice))
            loaded[info['img_id']] = info
        self.report(self._found, loaded)
        return list(loaded.values())

    def parse_data_info(self, img_info: dict) -> Optional[dict]:
        """Parse a VOC file without its bad objects. None if the image is bad."""
        # mmdet takes the lines of the list as they are, with marks and blanks.
        name = img_info['img_id'].strip('\ufeff \t\r')
        if not name:
            return None
        folder = os.path.join(self.sub_data_root, self.img_subdir)
        image = find_image(folder, name, self.loading)
        path = os.path.join(self.sub_data_root, self.ann_subdir, f'{name}.xml')
        root, problems = check_voc_file(
            path,
            image,
            self._metainfo['classes'],
            self.check_images,
            self.max_pixels,
            backend_args=self.backend_args,
            loading=self.loading,
        )
        self._found += problems
        if root is None:
            return None
        file_name = os.path.join(self.img_subdir, image[len(folder) :].lstrip('/\\'))
        img_info = dict(img_id=name, file_name=file_name, xml_path=path)
        if not problems:
            return super().parse_data_info(img_info)
        backend_args, self.backend_args = self.backend_args, None
        with tempfile.TemporaryDirectory() as temporary:
            mended = os.path.join(temporary, 'mended.xml')
            ElementTree.ElementTree(root).write(mended, encoding='utf-8')
            info = super().parse_data_info(dict(img_info, xml_path=mended))
        self.backend_args = backend_args
        return dict(info, xml_path=path)


@DATASETS.register_module()
class CheckedVOCDataset(CheckedXMLDataset, VOCDataset):
    """mmdet's VOCDataset, checked. See :class:`CheckedMixin` for its options."""
