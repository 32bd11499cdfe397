"""Write a detector to an ONNX file."""

import io
import json
import warnings
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Optional, Union

import torch
from mmdet.models.detectors import SingleStageDetector
from torch.onnx import register_custom_op_symbolic, symbolic_helper

from ..utils.atomic import write
from ..utils.errors import ConfigError
from .deform import traceable_deform_convs
from .deployable import DeployableDetector

OPSET = 17
# torch.export takes minutes over the padding's symbolic shapes and then refuses them.
# Tracing takes a second, and each batch and size is tested against PyTorch.
_BY_TRACING: dict[str, Any] = (
    dict(dynamo=False) if 'dynamo' in signature(torch.onnx.export).parameters else {}
)
# Batch, height, width. Any will do but those that a graph would be special for.
EXAMPLE = (2, 320, 352)


def export_onnx(
    detector: SingleStageDetector,
    path: Union[str, Path],
    nms: bool = True,
    resize: Optional[dict] = None,
    classes: Optional[Sequence[str]] = None,
    channels: int = 3,
) -> None:
    """Write a detector to one ONNX file for any batch size, height and width.

    The inputs are those of :meth:`DeployableDetector.forward`.

    Args:
        detector: See :class:`DeployableDetector`; on the CPU.
        path: The file; an older one is replaced once the new one is complete.
        nms: Whether to include the suppression. With it the outputs are ``boxes``
            (N, K, 4), ``scores`` (N, K) and ``labels`` (N, K); without it ``boxes``
            (N, A, 4) and ``scores`` (N, A, C).
        resize: ``scale`` and ``keep_ratio`` of the test pipeline; stored in the file
            for the program that prepares images. Default: it leaves them as they are.
        classes: Class names; stored in the file.
        channels: Channels of the images: 3, or 1 for grayscale.

    Raises:
        ConfigError: If the detector can't be exported, or a package is missing.
    """
    modes = {module: module.training for module in detector.modules()}
    try:
        facts = dict(resize=resize, classes=list(classes or ()), channels=channels)
        _export(DeployableDetector(detector, nms, channels), path, dict(facts, nms=nms))
    finally:
        for module, training in modes.items():  # train() would change its children's
            module.training = training


def _export(model: DeployableDetector, path: Union[str, Path], facts: dict) -> None:
    """Write the file."""
    try:
        import onnx

        from .suppression import append_suppression
    except ImportError as error:
        raise ConfigError(
            f'{error.name} is needed to export: pip install "mmdet_consistent[export]"'
        ) from error

    names = ['boxes', 'scores']
    outputs = [f'candidate_{name}' if model.nms else name for name in names]
    images = torch.zeros(*EXAMPLE, model.channels, dtype=torch.uint8)
    sizes = torch.tensor([EXAMPLE[1:]] * EXAMPLE[0])
    axes = dict(images={0: 'batch', 1: 'height', 2: 'width'}, sizes={0: 'batch'})
    axes.update({name: {0: 'batch', 1: 'rows'} for name in outputs})
    if tuple(int(part) for part in torch.__version__.split('.')[:2]) < (2, 1):
        register_custom_op_symbolic('aten::unflatten', _unflatten, OPSET)
    buffer: Any = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings(), traceable_deform_convs():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.filterwarnings('ignore', 'Constant folding')
        torch.onnx.export(
            model,
            (images, sizes),
            buffer,
            opset_version=OPSET,
            input_names=['images', 'sizes'],
            output_names=outputs,
            dynamic_axes=axes,
            **_BY_TRACING,
        )
    proto = onnx.load_from_string(buffer.getvalue())
    if model.nms:
        votes = getattr(model.head, 'with_score_voting', False)
        proto = append_suppression(proto, model.test_cfg, votes)
    for name, value in facts.items():
        proto.metadata_props.add(key=name, value=json.dumps(value))
    onnx.checker.check_model(proto, full_check=True)
    write(path, proto.SerializeToString())


@symbolic_helper.parse_args('v', 'i', 'is')
def _unflatten(g, value, dim: int, sizes: list[int]):
    """Export ``Tensor.unflatten``, which torch 2.0 can't, as a reshape."""
    # (torch looks at the type of `g`, whose class is private: no annotation.)
    rank: Any = symbolic_helper._get_tensor_rank(value)
    dim %= rank
    # 0 copies an axis, so only the axes after `dim` are looked up.
    front = g.op('Constant', value_t=torch.tensor([0] * dim + sizes))
    shape = g.op('Shape', value)
    back = symbolic_helper._slice_helper(
        g, shape, axes=[0], starts=[dim + 1], ends=[rank]
    )
    parts = [front, back] if dim + 1 < rank else [front]
    return g.op('Reshape', value, g.op('Concat', *parts, axis_i=0))
