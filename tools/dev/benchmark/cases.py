"""What to measure: one frozen :class:`Case`, and grids of them."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

WORKLOADS = ('head_loss', 'train_step', 'inference', 'postprocess')
DETECTORS = ('retinanet', 'ssd')
DTYPES = ('fp32', 'bf16')


def all_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Case:
    """One setting in which all contenders meet.

    Attributes:
        workload: One of :data:`WORKLOADS`.
        detector: ``'retinanet'`` (R-50-FPN) or ``'ssd'`` (VGG-16).
        height: Of the images, pixels.
        width: Of the images, pixels.
        batch: Images.
        classes: Number of object classes.
        ground_truths: Boxes in each image.
        stages: Label and regression stages of the consistent head.
        threads: Of PyTorch, within one operation.
        dtype: ``'fp32'``, or ``'bf16'``: autocast.
        device: ``'cpu'`` or ``'cuda'``.

    Raises:
        ValueError: If a field has a value that nothing can be measured at.
    """

    workload: str = 'head_loss'
    detector: str = 'retinanet'
    height: int = 512
    width: int = 512
    batch: int = 2
    classes: int = 80
    ground_truths: int = 8
    stages: int = 2
    threads: int = 1
    dtype: str = 'fp32'
    device: str = 'cpu'

    def __post_init__(self) -> None:
        choices = (
            ('workload', WORKLOADS),
            ('detector', DETECTORS),
            ('dtype', DTYPES),
            ('device', ('cpu', 'cuda')),
        )
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'{name} must be one of {", ".join(allowed)}, '
                    f'got {getattr(self, name)!r}'
                )
        for name in ('height', 'width', 'batch', 'classes', 'stages', 'threads'):
            if getattr(self, name) < 1:
                raise ValueError(
                    f'{name} must be at least 1, got {getattr(self, name)}'
                )
        if self.ground_truths < 0:
            raise ValueError(
                f'ground_truths must not be negative, got {self.ground_truths}'
            )

    @property
    def image(self) -> str:
        """Height × width, as users write it."""
        return f'{self.height}x{self.width}'


def parse_image(text: str) -> tuple[int, int]:
    """``'512'`` or ``'800x1333'`` to (height, width).

    Raises:
        ValueError: If it is neither.
    """
    parts = text.lower().split('x')
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise ValueError(
            f"an image size is a side ('512') or height x width ('800x1333'), "
            f'got {text!r}'
        )
    return int(parts[0]), int(parts[-1])


def grid(base: Case, **values: Sequence) -> list[Case]:
    """Every combination of the given fields' values.

    Args:
        base: Gives the other fields.
        **values: Field name to its values; ``image`` takes (height, width).
    """
    cases = []
    for chosen in itertools.product(*values.values()):
        options = dict(zip(values, chosen))
        if 'image' in options:
            options['height'], options['width'] = options.pop('image')
        cases.append(replace(base, **options))
    return cases


@dataclass(frozen=True)
class Task:
    """A case, who takes part, and the sections of the report that want it.

    ``effort`` multiplies the seconds that the case may take.
    """

    case: Case
    contenders: tuple[str, ...]
    groups: tuple[str, ...] = ()
    effort: float = 1.0


def merge_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Measure a case once, however many sections want it; order is kept."""
    merged: dict[Case, Task] = {}
    for task in tasks:
        known = merged.get(task.case, Task(task.case, (), effort=0.0))
        merged[task.case] = Task(
            task.case,
            tuple(dict.fromkeys(known.contenders + task.contenders)),
            tuple(dict.fromkeys(known.groups + task.groups)),
            max(known.effort, task.effort),
        )
    return list(merged.values())
