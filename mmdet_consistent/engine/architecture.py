"""Compare the parameters of a checkpoint with those of a model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import torch
from mmdet.models.detectors import SemiBaseDetector
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


@dataclass
class Mismatch:
    """Differences between a checkpoint and a model.

    Attributes:
        missing: Parameters of the model that are not in the file.
        left_over: Parameters of the file that are not in the model.
        shapes: Name to shape in the file and shape in the model.
        fitting: Number of parameters that agree in name and shape.
    """

    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[tuple, tuple]] = field(default_factory=dict)
    fitting: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.left_over or self.shapes)

    def table(self, limit: int = 20) -> str:
        """List the modules that differ, one per row.

        Args:
            limit: Largest number of rows; the last line counts the others.
        """
        rows = [('module', 'in the file', 'in the model')]
        rows += [(name, 'missing', some) for name, some in _by_module(self.missing)]
        for name, some in _by_module(self.left_over):
            rows.append((name, f'left over: {some}', '-'))
        for name, (theirs, ours) in self.shapes.items():
            rows.append((name, _shape(theirs), _shape(ours)))
        shown = rows[: limit + 1]
        widths = [max(map(len, column)) for column in zip(*shown)]
        lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in shown]
        if len(rows) > len(shown):
            lines.append(f'and {len(rows) - len(shown)} more')
        return '\n'.join(lines)


def compare(model: nn.Module, state_dict: dict) -> Mismatch:
    """Compare a checkpoint with a model by name and shape.

    Args:
        model: The model, not wrapped. Weights that fit are loaded.
        state_dict: Name to tensor. A leading ``module.`` is ignored, as in mmengine.
    """
    theirs = {name.removeprefix('module.'): v for name, v in state_dict.items()}
    given = set(theirs)
    metadata = getattr(state_dict, '_metadata', {})
    # Modules rename what they know by other names: a semi-supervised detector takes a
    # supervised one's weights, an RPN those of a two-stage detector.
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        module._load_from_state_dict(
            theirs, prefix, metadata.get(name, {}), True, [], [], []
        )
    ours = model.state_dict()
    result = Mismatch(left_over=[name for name in theirs if name not in ours])
    for name, value in ours.items():
        # Files from before torch 0.4.1 don't hold these counters: batch norm adds them.
        is_counter = name.endswith('num_batches_tracked')
        if name not in theirs or (is_counter and name not in given):
            if not is_counter:
                result.missing.append(name)
            continue
        shape = tuple(getattr(theirs[name], 'shape', ()))
        if torch.is_tensor(theirs[name]) and shape == tuple(value.shape):
            result.fitting += 1
        else:
            result.shapes[name] = (shape, tuple(value.shape))
    return result


def _by_module(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each module with the first names of its parameters."""
    for module, group in groupby(names, key=lambda name: name.rpartition('.')[0]):
        leaves = [name.rpartition('.')[2] for name in group]
        yield module, ', '.join(leaves[:4]) + (', …' if len(leaves) > 4 else '')


def _shape(shape: tuple) -> str:
    return '×'.join(map(str, shape)) or 'a single number'


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the detector inside distributed and test-time wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module  # type: ignore[assignment]
    return model


def trained_detector(model: nn.Module) -> nn.Module:
    """Return the detector that learns: of a semi-supervised one, the student."""
    model = unwrapped(model)
    return model.student if isinstance(model, SemiBaseDetector) else model
