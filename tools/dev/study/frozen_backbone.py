"""A frozen backbone whose features are computed once per image."""

import hashlib
from typing import ClassVar

import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_consistent.backbones import EfficientNetLite


@MODELS.register_module()
class CachedEfficientNetLite(EfficientNetLite):
    """EfficientNet-Lite0 without training, its outputs kept in memory by image.

    The cache is the process's: the trainings that follow find it filled. An image is
    known by its pixels after augmentation, so an augmentation must have few results.
    Every layer is frozen, and normalisation uses its stored statistics, so that an
    output depends on its image alone. Give all networks the same weights.
    """

    features: ClassVar[dict[bytes, tuple[Tensor, ...]]] = {}

    def train(self, mode: bool = True) -> 'CachedEfficientNetLite':
        """Stay in evaluation mode, with frozen weights."""
        return super().train(False).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return C3 to C5 of the images, (N, 3, H, W)."""
        keys = [hashlib.blake2b(image.numpy().tobytes()).digest() for image in x]
        for key, image in zip(keys, x):
            if key not in self.features:
                with torch.no_grad():
                    self.features[key] = super().forward(image[None])
        return tuple(map(torch.cat, zip(*(self.features[key] for key in keys))))
