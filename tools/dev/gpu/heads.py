"""Part one of the GPU check: the heads' losses, their speed and their memory."""

import itertools
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmdet_consistent.utils.device import may_use_kernels
from tools.dev.benchmark.cases import OURS, REFERENCE, Case, Contender, Task
from tools.dev.benchmark.detectors import build_slim_head
from tools.dev.benchmark.measure import measure
from tools.dev.benchmark.scene import head_outputs, image_metas, make_scene, tensors
from tools.dev.benchmark.workloads import total_loss

from .rows import Check, Row, judged

DETECTORS = ('retinanet', 'ssd')


class Sizes(NamedTuple):
    """Sizes of the checks: real ones, or tiny ones for a dry run."""

    device: str
    image: tuple[int, int]
    batches: tuple[int, ...]
    seconds: float

    def case(self, detector: str, **options: Any) -> Case:
        """Return the benchmark's case of a detector."""
        height, width = self.image
        if detector == 'ssd':
            height = width = 512 if height > 512 else 300
        sizes = dict(height=height, width=width, batch=self.batches[0])
        return Case(detector=detector, device=self.device, **{**sizes, **options})


REAL = Sizes('cuda', (800, 1333), (2, 8), 4.0)
DRY = Sizes('cpu', (96, 128), (1,), 0.1)


class Step:
    """One loss of a slim head, with the same inputs on any device."""

    def __init__(self, case: Case, contender: str) -> None:
        on_cpu = replace(case, device='cpu')
        scene = make_scene(on_cpu, build_slim_head(on_cpu, Contender(REFERENCE)))
        head = build_slim_head(on_cpu, Contender(contender))
        outputs = head_outputs(head, scene, on_cpu)
        self.head = head.to(case.device)
        self.outputs = [
            [x.detach().to(case.device).requires_grad_() for x in levels]
            for levels in outputs
        ]
        self.truth = [gt.to(case.device) for gt in scene.ground_truths]
        self.metas = next(image_metas(case))

    def loss(self) -> Tensor:
        """Return the total loss."""
        losses = self.head.loss_by_feat(*self.outputs, self.truth, self.metas)
        return total_loss(losses)

    def results(self) -> list[Tensor]:
        """Return the loss and the gradients of the outputs, in float32 on the CPU."""
        loss = self.loss()
        grads = torch.autograd.grad(loss, list(tensors(self.outputs)))
        return [x.detach().float().cpu() for x in (loss, *grads)]


def largest_difference(ours: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference, relative to each tensor's largest value."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-9))
        for a, b in zip(ours, expected)
    )


def about(sizes: Sizes) -> Iterator[Row]:
    """Name the machine, and which code computes the head's loss."""
    is_gpu = sizes.device == 'cuda'
    name = torch.cuda.get_device_name() if is_gpu else f'{platform.machine()} CPU (dry)'
    yield Row('device', name, f'PyTorch {torch.__version__}', '')
    kernels = may_use_kernels(torch.zeros(1, device=sizes.device))
    way = 'Triton kernels' if kernels else 'PyTorch operators'
    yield Row('head loss', sizes.device, way, '')


def check_equality(sizes: Sizes, detector: str) -> Iterator[Row]:
    """Compare the device's losses with the CPU's, and one stage with mmdet's head."""
    case = sizes.case(detector)
    on_cpu = Step(replace(case, device='cpu'), OURS).results()
    difference = largest_difference(Step(case, OURS).results(), on_cpu)
    yield judged('loss and gradients as on the CPU', detector, difference, 1e-4)
    ours, theirs = (Step(case, name).results() for name in ('one_stage', REFERENCE))
    difference = largest_difference(ours, theirs)
    yield judged("one stage as mmdet's head", detector, difference, 1e-4)


def check_waits(sizes: Sizes, detector: str) -> Iterator[Row]:
    """Run a step in which every wait of the host is an error."""
    step = Step(sizes.case(detector), OURS)
    step.results()  # kernels are compiled, anchors are kept
    is_gpu = sizes.device == 'cuda'
    if is_gpu:
        torch.cuda.set_sync_debug_mode('error')
    try:
        step.loss().backward()
    finally:
        if is_gpu:
            torch.cuda.set_sync_debug_mode('default')
    yield Row('waits of the host in a step', detector, 'none', 'yes' if is_gpu else '')


def check_half_precision(sizes: Sizes, detector: str) -> Iterator[Row]:
    """Compare a step on half-precision outputs with one on the same values, wide."""
    for dtype in (torch.float16, torch.bfloat16):
        step = Step(sizes.case(detector), OURS)
        half = [[x.detach().to(dtype) for x in levels] for levels in step.outputs]
        found = []
        for wide in (False, True):
            step.outputs = [
                [(x.float() if wide else x.clone()).requires_grad_() for x in levels]
                for levels in half
            ]
            found.append(step.results())
        setting = f'{detector}, {str(dtype)[6:]}'
        difference = largest_difference(*found)
        yield judged('half precision as float32', setting, difference, 0.02)


def measure_speed(sizes: Sizes, detector: str) -> Iterator[Row]:
    """Time head loss, training step and inference against mmdet's, alternately."""
    cases = [sizes.case(detector, batch=batch) for batch in sizes.batches]
    cases += [
        sizes.case(detector, workload=name) for name in ('train_step', 'inference')
    ]
    for case in cases:
        task = Task.of(case, (REFERENCE, OURS), 'gpu')
        rows, errors = measure(task, seconds=sizes.seconds)
        setting = f'{case.detector}, batch {case.batch}, {case.image}'
        for error in errors:
            yield Row(case.workload, setting, error, 'no')
        for _, row in rows[rows.part.isin(['total', 'peak_memory'])].iterrows():
            value = f'{row["median"]:.4g} {row.unit}'
            if row.contender == OURS:
                value += f', {row.ratio:.2f} of mmdet'
            yield Row(
                f'{case.workload}, {row.part}, {row.contender}', setting, value, ''
            )


CHECKS: tuple[Callable[[Sizes, str], Iterator[Row]], ...] = (
    check_equality,
    check_waits,
    check_half_precision,
    measure_speed,
)


def checks(sizes: Sizes) -> Iterator[Check]:
    """Yield the checks of part one."""
    yield Check('device', '', partial(about, sizes))
    for check, detector in itertools.product(CHECKS, DETECTORS):
        yield Check(check.__name__, detector, partial(check, sizes, detector))
