"""INT8 files by onnxruntime's static quantisation, calibrated on training images."""

import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch.utils.data import ConcatDataset

from ..utils.atomic import write
from ..utils.configs import plain_datasets
from ..utils.errors import ConfigError
from .from_config import test_pipelines

# Operators that stay in INT8 where they lie between two convolutions.
BETWEEN = ('Add', 'Concat', 'Relu', 'Resize')


def calibration_images(cfg: Config, count: int) -> Iterator[np.ndarray]:
    """Yield images of the training set, prepared by the test pipeline.

    Args:
        cfg: The config, with ``train_dataloader`` and ``test_dataloader``.
        count: Number of images, spread evenly; fewer if the set is smaller.

    Yields:
        (H, W, 3) RGB or (H, W, 1) gray pixels, uint8.

    Raises:
        ConfigError: If the config has no training set, or the set has no image.
    """
    configs = list(plain_datasets((cfg.get('train_dataloader') or {}).get('dataset')))
    [pipeline, *_] = test_pipelines(cfg)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints a lot
        found = [DATASETS.build({**config, 'pipeline': pipeline}) for config in configs]
    if not any(map(len, found)):
        raise ConfigError(
            'train_dataloader.dataset: there is no image to calibrate on; --int8 takes '
            'images of the training set'
        )
    images: Any = ConcatDataset(found)
    for index in np.linspace(0, len(images) - 1, min(count, len(images))).astype(int):
        pixels = images[int(index)]['inputs'].permute(1, 2, 0).numpy()
        yield np.ascontiguousarray(pixels[..., ::-1])


def quantize(
    path: Union[str, Path], out: Union[str, Path], images: Iterable[np.ndarray]
) -> None:
    """Write the INT8 version of an exported file (weights, and values between layers).

    Convolutions are quantised, and what lies between them, but not the first one and
    the head's last ones. So preprocessing, scores, boxes and suppression stay in
    float32. Inputs, outputs and metadata are those of the file.

    Args:
        path: A file of :func:`export_onnx`.
        out: The file to write; it may be the same.
        images: Pixels to calibrate on, (H, W, 3 or 1) uint8, RGB or gray.

    Raises:
        ConfigError: If onnx or onnxruntime is missing.
    """
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ConfigError(
            f'{error.name} is needed to export: pip install "mmdet_consistent[export]"'
        ) from error

    original = onnx.load(str(path))
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = (str(Path(folder) / name) for name in ('a', 'b'))
        quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            _Reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=['Conv', *BETWEEN],
            nodes_to_quantize=quantized_nodes(onnx.load(prepared).graph.node),
        )
        proto = onnx.load(quantized)
    del proto.metadata_props[:]
    proto.metadata_props.extend(original.metadata_props)
    write(out, proto.SerializeToString())


def quantized_nodes(nodes: Sequence[Any]) -> list[str]:
    """Return the names of the nodes to quantise; see :func:`quantize`.

    Args:
        nodes: A graph's nodes, in their order of execution.
    """
    producers = {name: node for node in nodes for name in node.output}

    def before(node: Any) -> list:
        return [producers[name] for name in node.input if name in producers]

    depths: dict[str, int] = {}  # convolutions up to a node, with itself
    has_conv_behind: set[str] = set()
    for node in nodes:  # in their order of execution
        found = [depths[other.name] for other in before(node)]
        depths[node.name] = max(found, default=0) + (node.op_type == 'Conv')
    for node in reversed(nodes):
        if node.op_type == 'Conv' or node.name in has_conv_behind:
            has_conv_behind.update(other.name for other in before(node))
    chosen = {
        node.name: node
        for node in nodes
        if node.op_type == 'Conv'
        and depths[node.name] > 1
        and node.name in has_conv_behind
    }
    queue = [other for node in chosen.values() for other in before(node)]
    while queue:
        node = queue.pop()
        if node.op_type in BETWEEN and node.name not in chosen:
            chosen[node.name] = node
            queue += before(node)
    return sorted(chosen)


class _Reader:
    """Hands images to onnxruntime's calibration, one by one."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self.images = iter(images)

    def get_next(self) -> Optional[dict]:
        """Return the inputs for the next image, or ``None`` after the last."""
        for image in self.images:
            size = np.array([image.shape[:2]], np.int64)
            return dict(images=image[None], sizes=size)
        return None
