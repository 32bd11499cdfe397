"""Count what the head's loss does on a GPU, on fake tensors.

Fake tensors have shapes, but no values. So the code runs as on a GPU, with kernels and
without selecting rows, in little time and memory, and each operation is counted.
"""

import collections
import contextlib
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from mmengine.structures import InstanceData
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmdet_consistent.losses import focal, focal_kernel
from mmdet_consistent.task_modules import match_kernel, max_iou
from tools.dev.benchmark.workloads import total_loss

# Operations that launch nothing: they make or rename a tensor.
FREE = {
    *('empty', 'empty_like', 'new_empty', 'empty_strided', 'new_empty_strided'),
    *('detach', 'alias', 'lift_fresh', '_unsafe_view', '_reshape_alias'),
}


@dataclass
class Budget:
    """Cost of a forward and backward pass.

    Attributes:
        launches: Number of launched kernels.
        moved: Bytes read and written by them.
        peak: Largest number of bytes held at once, without the inputs.
        places: Launches and bytes by the code that caused them.
    """

    launches: int = 0
    moved: int = 0
    peak: int = 0
    places: dict = field(
        default_factory=lambda: collections.defaultdict(lambda: [0, 0])
    )


def measure_budget(
    head: Any,
    *,
    batch: int,
    size: tuple[int, int],
    gts: int,
    dtype: torch.dtype = torch.float32,
) -> Budget:
    """Count a loss with its backward pass.

    Args:
        head: A built head, for CPU tensors; they take a GPU's way.
        batch: Number of images.
        size: (height, width) of the images, in pixels.
        gts: Number of ground truths per image.
        dtype: Type of the outputs.
    """
    counter = _Counter()
    height, width = size
    pad = (-(-height // 32) * 32, -(-width // 32) * 32)
    metas = [dict(img_shape=size, pad_shape=pad) for _ in range(batch)]
    generator = head.prior_generator
    sizes = [(-(-pad[0] // h), -(-pad[1] // w)) for w, h in generator.strides]
    head.select_rows = False
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (focal, 'may_use_kernels', lambda *args: True),
            (max_iou, 'may_use_kernels', lambda *args: True),
            (focal_kernel, 'launch', counter.launch),
            (match_kernel, 'launch', counter.launch),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        generator.base_anchors = [torch.empty(b.shape) for b in generator.base_anchors]
        outputs = [
            [
                torch.empty(batch, a * c, *s, dtype=dtype, requires_grad=True)
                for a, s in zip(generator.num_base_priors, sizes)
            ]
            for c in (head.cls_out_channels, sum(head.output_sizes))
        ]
        truth = [
            InstanceData(
                bboxes=torch.empty(gts, 4), labels=torch.empty(gts, dtype=torch.long)
            )
            for _ in range(batch)
        ]
        head.prior_anchors(outputs[0], metas)  # they are kept from then on
        counter.ignore([x for levels in outputs for x in levels])
        with counter:
            losses = head.loss_by_feat(*outputs, truth, metas)
            total_loss(losses).backward()
    return counter.budget


class _Counter(TorchDispatchMode):
    """Counts operations, and the bytes that their results hold."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget()
        self.held = 0
        self.seen: dict[int, int] = {}

    def ignore(self, tensors: list) -> None:
        """Leave the inputs out of the bytes that are held."""
        self.seen.update((t.untyped_storage()._cdata, 0) for t in tensors)

    def launch(self, kernel: Any, grid: tuple, *args: Any, **options: Any) -> None:
        """Count a kernel of ours instead of launching it."""
        self.count([a for a in args if isinstance(a, torch.Tensor)])

    def count(self, tensors: list) -> None:
        """Count one launch that reads or writes some tensors."""
        moved = sum(t.numel() * t.element_size() for t in tensors)
        place = self.budget.places[_caller()]
        place[0] += 1
        place[1] += moved
        self.budget.launches += 1
        self.budget.moved += moved

    def hold(self, tensor: torch.Tensor) -> None:
        """Count a tensor's memory until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen:
            return
        self.seen[key] = storage.nbytes()
        self.held += storage.nbytes()
        self.budget.peak = max(self.budget.peak, self.held)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.held -= self.seen.pop(key, 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        is_view = any(
            r.alias_info is not None and not r.alias_info.is_write
            for r in func._schema.returns
        )
        tensors = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if not is_view and func.overloadpacket.__name__ not in FREE and tensors:
            self.count([*inputs, *tensors])
        for tensor in tensors:
            self.hold(tensor)
        return out


def _caller() -> str:
    """Name the innermost function of this package, or of mmdet's, that is running."""
    frame = sys._getframe(2)
    while frame:
        path = frame.f_code.co_filename
        if '/mmdet_consistent/' in path or '/mmdet/' in path:
            return f'{path.rsplit("/", 1)[-1]}:{frame.f_code.co_name}'
        frame = frame.f_back
    return 'backward'
