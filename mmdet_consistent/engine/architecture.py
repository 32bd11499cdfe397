"""Compare the parameters in a checkpoint with those of a model."""

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


@dataclass
class Mismatch:
    """Where a checkpoint and a model differ.

    Attributes:
        missing: Names that the model has and the file hasn't.
        left_over: Names that the file has and the model hasn't.
        shapes: Name to (shape in the file, shape in the model).
        fitting: Number of names that agree in name and shape.
    """

    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[tuple, tuple]] = field(default_factory=dict)
    fitting: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.left_over or self.shapes)

    def table(self, limit: int = 20) -> str:
        """One row for each module that differs.

        Args:
            limit: Rows at most; more are counted in the last line.
        """
        rows = [('module', 'in the file', 'in the model')]
        for name, names in _by_module(self.missing).items():
            rows.append((name, 'missing', _list(names)))
        for name, names in _by_module(self.left_over).items():
            rows.append((name, f'left over: {_list(names)}', '-'))
        for name, (in_file, in_model) in self.shapes.items():
            rows.append((name, _shape(in_file), _shape(in_model)))
        extra = len(rows) - 1 - limit
        rows = rows[: limit + 1]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            '  '.join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
            for row in rows
        ]
        if extra > 0:
            lines.append(f'and {extra} more')
        return '\n'.join(lines)


def compare(model: nn.Module, state_dict: dict) -> Mismatch:
    """Compare by name and shape.

    Args:
        model: The model, not wrapped.
        state_dict: Name to tensor; a leading ``module.`` is ignored, as
            mmengine does.
    """
    theirs = {k[7:] if k.startswith('module.') else k: v for k, v in state_dict.items()}
    ours = model.state_dict()
    result = Mismatch()
    for name, value in ours.items():
        if name not in theirs:
            # Files from before torch 0.4.1 don't hold these counters.
            if not name.endswith('num_batches_tracked'):
                result.missing.append(name)
        elif not isinstance(theirs[name], torch.Tensor):
            result.shapes[name] = ((), tuple(value.shape))
        elif theirs[name].shape != value.shape:
            result.shapes[name] = (tuple(theirs[name].shape), tuple(value.shape))
        else:
            result.fitting += 1
    result.left_over = [name for name in theirs if name not in ours]
    return result


def _by_module(names: list[str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        module, _, leaf = name.rpartition('.')
        groups[module].append(leaf)
    return dict(groups)


def _list(names: list[str]) -> str:
    return ', '.join(names[:4]) + (', …' if len(names) > 4 else '')


def _shape(shape: tuple) -> str:
    return '×'.join(map(str, shape)) or 'a single number'


def unwrapped(model: nn.Module) -> nn.Module:
    """The detector itself, out of distributed and test-time wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
