"""Writing a detector to an ONNX file."""

import io
import json
import warnings
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Optional, Union

import torch
from mmdet.models.detectors import SingleStageDetector

from ..utils.atomic import write
from ..utils.errors import ConfigError
from .deployable import DeployableDetector
from .unflatten import register_unflatten

OPSET = 17
# torch.export takes minutes over the padding's symbolic shapes and then refuses them.
# Tracing takes a second, and each batch and size is tested against PyTorch.
_BY_TRACING = (
    dict(dynamo=False) if 'dynamo' in signature(torch.onnx.export).parameters else {}
)
# Any shape does: another one than those of which a graph would be special.
EXAMPLE = (2, 320, 352)


def export_onnx(
    detector: SingleStageDetector,
    path: Union[str, Path],
    nms: bool = True,
    resize: Optional[dict] = None,
    classes: Optional[Sequence[str]] = None,
) -> None:
    """Write a detector to one ONNX file for any batch, height and width.

    Args:
        detector: See :class:`DeployableDetector`; on the CPU.
        path: The file; written beside, then renamed.
        nms: With suppression: ``boxes`` (N, K, 4), ``scores`` (N, K), ``labels``
            (N, K). Without: ``boxes`` (N, A, 4), ``scores`` (N, A, C).
        resize: ``scale`` and ``keep_ratio`` of the test pipeline, kept in the file
            for whoever prepares images.
        classes: Their names, kept in the file.

    Raises:
        ConfigError: If the detector can't be exported, or a package is missing.
    """
    try:
        import onnx

        from .suppression import append_suppression
    except ImportError as error:
        raise ConfigError(
            f'{error.name} is needed to export: pip install "mmdet_consistent[export]"'
        ) from error

    model = DeployableDetector(detector, nms)
    raw = ['boxes', 'scores', 'labels'] if nms else ['boxes', 'scores']
    number, high, wide = EXAMPLE
    buffer = io.BytesIO()
    example = (
        torch.zeros(number, high, wide, 3, dtype=torch.uint8),
        torch.tensor([[high, wide]] * number),
    )
    candidates = [f'candidate_{name}' if nms else name for name in raw]
    axes = dict(images={0: 'batch', 1: 'height', 2: 'width'}, sizes={0: 'batch'})
    axes.update({name: {0: 'batch', 1: 'rows'} for name in candidates})
    register_unflatten(OPSET)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.filterwarnings('ignore', 'Constant folding')
        torch.onnx.export(
            model,
            example,
            buffer,
            opset_version=OPSET,
            input_names=['images', 'sizes'],
            output_names=candidates,
            dynamic_axes=axes,
            **_BY_TRACING,
        )
    proto = onnx.load_from_string(buffer.getvalue())
    if nms:
        proto = append_suppression(proto, model.test_cfg, model.head.num_classes)
    facts = dict(resize=resize, classes=list(classes or ()), nms=nms)
    for name, value in facts.items():
        proto.metadata_props.add(key=name, value=json.dumps(value))
    onnx.checker.check_model(proto, full_check=True)
    write(path, proto.SerializeToString())
