"""Deterministic transforms whose results stay in memory."""

import copy
from collections.abc import Sequence
from typing import Optional, Union

from mmcv.transforms import BaseTransform, Compose
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CachedTransforms(BaseTransform):
    """Runs transforms once per image and keeps the results.

    Loading, decoding and resizing then cost nothing after the first epoch. The data
    must fit into memory, and every transform must be deterministic; random ones
    belong after this one.

    Args:
        transforms: Configs of the transforms, or the transforms.
    """

    def __init__(self, transforms: Sequence[Union[dict, BaseTransform]]) -> None:
        self.transforms = Compose(transforms)
        self._cache: dict = {}

    def transform(self, results: dict) -> Optional[dict]:
        """Return a copy of the cached result of ``results['img_id']``.

        Args:
            results: The data set's entry of one image.

        Returns:
            The transformed results, which the caller may change; ``None`` if a
            transform drops the image.
        """
        key = results['img_id']
        if key not in self._cache:
            self._cache[key] = self.transforms(results)
        return copy.deepcopy(self._cache[key])


@TRANSFORMS.register_module()
class ResizeByOrientation(Resize):
    """Resizes landscape images to one size, and portrait images to its transpose.

    Args:
        scale: Width and height of a landscape image, in pixels.
    """

    def __init__(self, scale: tuple[int, int]) -> None:
        super().__init__(scale=scale, keep_ratio=False)
        self.sizes = (scale, scale[::-1])

    def transform(self, results: dict) -> dict:
        """Resize image and boxes."""
        height, width = results['img'].shape[:2]
        self.scale = self.sizes[height > width]
        return super().transform(results)
