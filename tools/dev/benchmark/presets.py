"""Named lists of tasks, and the sections of the report they fill."""

from collections.abc import Sequence
from dataclasses import replace

from .cases import Case, Task, all_cores, grid, merge_tasks
from .contenders import ADDITIONS, REFERENCE, contenders_of

BOTH = (REFERENCE, 'consistent')
# 49,104 anchors an image, 98,208 a batch; SSD512 has 24,564.
HEAD_LOSS = Case()
SSD = Case(detector='ssd')
TRAIN = Case(workload='train_step', height=256, width=256)
TRAIN_SSD = Case(workload='train_step', detector='ssd', height=300, width=300, batch=1)
INFER = replace(TRAIN, workload='inference', height=320, width=320, batch=1)
INFER_SSD = replace(TRAIN_SSD, workload='inference')
# Whole detectors take a second or more, and their ratios lie close to 1.
TRAIN_EFFORT, INFER_EFFORT = 8.0, 4.0


WHOLE = (
    (TRAIN, TRAIN_EFFORT),
    (TRAIN_SSD, TRAIN_EFFORT),
    (INFER, INFER_EFFORT),
    (INFER_SSD, INFER_EFFORT),
)


def _all(case: Case, group: str, effort: float = 1.0) -> Task:
    return Task(case, contenders_of(case.detector), (group,), effort)


def _threads(*cases: Case) -> list[Case]:
    """Each case with one thread and with all cores."""
    counts = sorted({1, all_cores()})
    return [replace(case, threads=count) for case in cases for count in counts]


def head_loss() -> list[Task]:
    """The head loss of both detectors at the size of the targets."""
    return [_all(case, 'head_loss') for case in _threads(HEAD_LOSS, SSD)]


def detector() -> list[Task]:
    """Whole training steps and inference, with all cores; post-processing."""
    cores = all_cores()
    tasks = [
        _all(replace(case, threads=cores), case.workload, effort)
        for case, effort in WHOLE
    ]
    for case in (HEAD_LOSS, SSD):
        post = replace(case, workload='postprocess', batch=1)
        tasks.append(_all(post, 'postprocess'))
    return tasks


GROWTH: dict[str, list[Case]] = {
    'ground_truths': grid(replace(HEAD_LOSS, batch=1), ground_truths=[8, 40, 200, 800]),
    'anchors': grid(
        replace(HEAD_LOSS, batch=1),
        image=[(224, 224), (352, 352), (512, 512), (736, 736), (1024, 1024)],
    ),
    'batch': grid(replace(HEAD_LOSS, height=256, width=256), batch=[1, 2, 4, 8, 16]),
    'stages': grid(replace(HEAD_LOSS, batch=1), stages=[2, 3, 4]),
}


def growth() -> list[Task]:
    """One dimension at a time, each against mmdet's head."""
    return [
        Task(case, BOTH, (f'growth:{name}',))
        for name, cases in GROWTH.items()
        for case in cases
    ]


def settings() -> list[Task]:
    """Where people differ: classes, crowds, size, precision, the paper's image."""
    base = replace(HEAD_LOSS, batch=1)
    cases = [
        replace(base, classes=1),
        replace(base, classes=3),
        replace(base, classes=1203),
        replace(base, ground_truths=0),
        replace(base, dtype='bf16'),
        replace(base, height=500, width=833),
        replace(base, height=800, width=1333),
    ]
    cases[2] = replace(cases[2], height=256, width=256)
    cases += [
        replace(SSD, batch=1, height=300, width=300),
        replace(SSD, batch=1, ground_truths=200),
        replace(SSD, batch=1, dtype='bf16'),
        replace(SSD, batch=8),
    ]
    return [Task(case, BOTH, ('settings',)) for case in cases]


def modes() -> list[Task]:
    """torch.compile of the head loss; channels-last training."""
    compiled = (*BOTH, 'consistent+compile')
    channels = (*BOTH, f'{REFERENCE}+channels_last', 'consistent+channels_last')
    return [
        Task(HEAD_LOSS, compiled, ('modes',)),
        Task(replace(TRAIN, threads=all_cores()), channels, ('modes',), TRAIN_EFFORT),
    ]


def additions() -> list[Task]:
    """What goes beyond the paper, in whole training steps and inference."""
    names = (*BOTH, *ADDITIONS)
    return [
        Task(replace(case, threads=all_cores()), names, (case.workload,), effort)
        for case, effort in WHOLE
    ]


def targets() -> list[Task]:
    """What the targets' table needs."""
    trio = (REFERENCE, 'one_stage', 'consistent')
    cores = all_cores()
    tasks = [Task(case, trio, ('head_loss',)) for case in _threads(HEAD_LOSS, SSD)]
    tasks += [
        Task(replace(case, threads=cores), BOTH, (case.workload,), effort)
        for case, effort in WHOLE
    ]
    return tasks + growth()


def quick() -> list[Task]:
    """A look in under a minute: the head loss, and growth at both ends."""
    trio = (REFERENCE, 'one_stage', 'consistent')
    tasks = [Task(case, trio, ('head_loss',)) for case in (HEAD_LOSS, SSD)]
    for name, cases in GROWTH.items():
        tasks += [
            Task(case, BOTH, (f'growth:{name}',)) for case in (cases[0], cases[-1])
        ]
    return tasks


def everything() -> list[Task]:
    """All sections of the report."""
    return head_loss() + detector() + additions() + growth() + settings() + modes()


PRESETS = dict(
    head_loss=head_loss,
    detector=detector,
    additions=additions,
    growth=growth,
    settings=settings,
    modes=modes,
    targets=targets,
    quick=quick,
    all=everything,
)


def preset(names: Sequence[str], devices: Sequence[str] = ('cpu',)) -> list[Task]:
    """The tasks of some presets, each case once, on each device.

    On CUDA the number of threads says nothing, so a case appears once.
    """
    tasks = []
    for device in devices:
        for task in (task for name in names for task in PRESETS[name]()):
            case = task.case
            if device != 'cpu':
                case = replace(case, device=device, threads=1)
            tasks.append(replace(task, case=case))
    return merge_tasks(tasks)
