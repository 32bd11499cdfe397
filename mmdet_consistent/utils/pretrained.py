"""ImageNet weights by torchvision's names, without torchvision and for SSD's VGG-16.

mmengine imports torchvision to look ``torchvision://resnet50`` up; where torchvision is
missing or does not load, mmengine's own table of addresses does. And
``torchvision-ssd://vgg16`` names torchvision's VGG-16 as mmdet's ``SSDVGG`` wants it.
"""

from pathlib import Path
from typing import Any, Optional

import mmengine
from mmengine.runner import checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

torchvision_models = checkpoint.get_torchvision_models


def get_torchvision_models() -> dict[str, str]:
    """Return the address of each name, also where torchvision does not load."""
    try:
        return torchvision_models()
    except (ImportError, RuntimeError):  # RuntimeError: built for another PyTorch
        return mmengine.load(
            Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json'
        )


def to_ssd_vgg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of torchvision's VGG-16 for mmdet's ``SSDVGG``.

    The convolutions have the same names. The fully connected layers fc6 and fc7 become
    convolutions of every fourth channel, as in SSD: 3 × 3 (every third of 7 × 7
    positions, which SSD's dilation of 6 spreads over the same area) and 1 × 1.

    Args:
        state: Weights of ``torchvision.models.vgg16``, (4096, 25088) for fc6.

    Returns:
        Weights by the names of ``SSDVGG``.
    """
    features = {name: v for name, v in state.items() if name.startswith('features.')}
    fc6 = state['classifier.0.weight'].view(4096, 512, 7, 7)[::4, :, ::3, ::3]
    fc7 = state['classifier.3.weight'].view(4096, 4096, 1, 1)[::4, ::4]
    return {
        **features,
        'features.31.weight': fc6.contiguous(),
        'features.31.bias': state['classifier.0.bias'][::4].contiguous(),
        'features.33.weight': fc7.contiguous(),
        'features.33.bias': state['classifier.3.bias'][::4].contiguous(),
    }


@CheckpointLoader.register_scheme(prefixes='torchvision-ssd://', force=True)
def load_ssd_vgg(filename: str, map_location: Optional[Any] = None) -> dict:
    """Load ``torchvision-ssd://vgg16``."""
    name = filename.replace('torchvision-ssd://', 'torchvision://')
    return to_ssd_vgg(CheckpointLoader.load_checkpoint(name, map_location))


def install_names() -> None:
    """Make mmengine find torchvision's names everywhere."""
    checkpoint.get_torchvision_models = get_torchvision_models
