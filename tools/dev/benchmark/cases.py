"""Settings to measure (cases), heads to measure (contenders), and tasks of both."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Optional

DETECTORS = dict(retinanet='RetinaNet', ssd='SSD')
CHOICES = dict(
    workload=('head_loss', 'train_step', 'inference', 'postprocess'),
    detector=tuple(DETECTORS),
    dtype=('fp32', 'bf16'),
    device=('cpu', 'cuda'),
    shapes=('equal', 'varied'),
)


def all_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Case:
    """One setting in which contenders are compared.

    Attributes:
        workload: ``'head_loss'``, ``'train_step'``, ``'inference'`` or
            ``'postprocess'``.
        detector: ``'retinanet'`` (R-50-FPN) or ``'ssd'`` (VGG-16).
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        batch: Number of images.
        classes: Number of object classes.
        ground_truths: Number of boxes per image.
        stages: Label and regression stages of the consistent head.
        threads: PyTorch's threads within one operation.
        dtype: ``'fp32'``, or ``'bf16'`` for autocast.
        device: ``'cpu'`` or ``'cuda'``.
        shapes: ``'equal'``, or ``'varied'``: every image has its own shape within
            height × width, and another one in every repetition, so that nothing
            that is cached by shape can be reused.

    Raises:
        ValueError: If a field has an impossible value.
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
    shapes: str = 'equal'

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            least = 0 if name == 'ground_truths' else 1
            if name in CHOICES and value not in CHOICES[name]:
                raise ValueError(
                    f'{name} must be one of {", ".join(CHOICES[name])}, got {value!r}'
                )
            if name not in CHOICES and value < least:
                raise ValueError(f'{name} must be at least {least}, got {value}')

    @property
    def image(self) -> str:
        """Height × width, as users write it."""
        return f'{self.height}x{self.width}'


def parse_image(text: str) -> tuple[int, int]:
    """Convert ``'512'`` or ``'800x1333'`` to (height, width).

    Raises:
        ValueError: If the text is neither.
    """
    parts = text.lower().split('x')
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise ValueError(
            f"an image size is a side ('512') or height x width ('800x1333'), "
            f'got {text!r}'
        )
    return int(parts[0]), int(parts[-1])


def grid(base: Case, **values: Sequence) -> list[Case]:
    """Return every combination of the given fields' values.

    Args:
        base: Case that provides the other fields.
        **values: Field name to its values; ``image`` takes (height, width).
    """
    cases = []
    for chosen in itertools.product(*values.values()):
        options = dict(zip(values, chosen))
        if 'image' in options:
            options['height'], options['width'] = options.pop('image')
        cases.append(replace(base, **options))
    return cases


REFERENCE, OURS = 'mmdet', 'consistent'
# Consistent heads with additions that go beyond the paper.
ADDITIONS: dict[str, dict] = {
    'aligned': dict(additions=[dict(type='AlignedFeatures')]),
    'soft_labels': dict(additions=[dict(type='SoftLabels')]),
    'loc_confidence': dict(additions=[dict(type='LocalizationConfidence')]),
}
# Options of the consistent head; None is mmdet's own head.
HEADS: dict[str, Optional[dict]] = {
    REFERENCE: None,
    'one_stage': dict(label_stages=1, reg_stages=1),
    OURS: dict(),
    'cascade': dict(variant='cascade'),
    'gated_cascade': dict(variant='gated_cascade'),
    **ADDITIONS,
}
# Mode to the workloads that have it.
MODES = dict(compile=('head_loss',), channels_last=('train_step', 'inference'))


class Contender(NamedTuple):
    """A head, measured as it is or in one of :data:`MODES`."""

    head: str
    mode: str = ''

    @classmethod
    def parse(cls, name: str) -> 'Contender':
        """Convert a name such as ``'consistent+compile'``.

        Raises:
            ValueError: If head or mode are unknown.
        """
        head, plus, mode = name.partition('+')
        if head not in HEADS or (plus and mode not in MODES):
            raise ValueError(
                f'unknown contender {name!r}: use one of {", ".join(HEADS)}, with '
                f'{" or ".join("+" + mode for mode in MODES)} behind it if wanted'
            )
        return cls(head, mode)

    @property
    def name(self) -> str:
        """The name that :meth:`parse` reads."""
        return f'{self.head}+{self.mode}' if self.mode else self.head

    def lacks_operator(self, case: Case) -> bool:
        """Return whether the head needs mmcv's focal loss with bfloat16 on CUDA."""
        found = (self.head, case.detector, case.dtype, case.device)
        training = case.workload in ('head_loss', 'train_step')
        return training and found == (REFERENCE, 'retinanet', 'bf16', 'cuda')


def contenders_of(detector: str) -> tuple[str, ...]:
    """Return the paper's heads for a detector; SSD has no tower to gate."""
    missing = {*ADDITIONS, *(('gated_cascade',) if detector == 'ssd' else ())}
    return tuple(name for name in HEADS if name not in missing)


@dataclass(frozen=True)
class Task:
    """A case, its contenders, and the sections of the report that show it.

    ``effort`` multiplies the seconds that the case may take.
    """

    case: Case
    contenders: tuple[Contender, ...]
    groups: tuple[str, ...] = ()
    effort: float = 1.0

    @classmethod
    def of(
        cls, case: Case, names: Sequence[str], group: str, effort: float = 1.0
    ) -> 'Task':
        """Build a task for one section from contenders' names.

        Raises:
            ValueError: If a contender is unknown, or the workload lacks its mode.
        """
        contenders = tuple(map(Contender.parse, names))
        for mode in {contender.mode for contender in contenders} - {''}:
            if case.workload not in MODES[mode]:
                raise ValueError(
                    f'+{mode} is for {" and ".join(MODES[mode])}, not for '
                    f'{case.workload}'
                )
        return cls(case, contenders, (group,), effort)


def merge_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Merge the tasks of each case, so that it is measured once; keep the order."""
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
