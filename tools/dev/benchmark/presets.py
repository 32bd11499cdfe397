"""Named lists of tasks, and the sections of the report that they fill."""

from collections.abc import Sequence
from dataclasses import replace

from .cases import (
    ADDITIONS,
    OURS,
    REFERENCE,
    Case,
    Task,
    all_cores,
    contenders_of,
    grid,
    merge_tasks,
)

BOTH = (REFERENCE, OURS)
TRIO = (REFERENCE, 'one_stage', OURS)
# 49,104 anchors per image, 98,208 per batch; SSD512 has 24,564.
HEAD_LOSS = Case()
SSD = Case(detector='ssd')
ONE = Case(batch=1)
TRAIN = Case(workload='train_step', height=256, width=256, threads=all_cores())
TRAIN_SSD = replace(TRAIN, detector='ssd', height=300, width=300, batch=1)
INFER = replace(TRAIN, workload='inference', height=320, width=320, batch=1)
INFER_SSD = replace(TRAIN_SSD, workload='inference')
# Whole detectors take a second or more, and their ratios lie close to 1.
WHOLE = ((TRAIN, 8.0), (TRAIN_SSD, 8.0), (INFER, 4.0), (INFER_SSD, 4.0))
POST = [replace(case, workload='postprocess', batch=1) for case in (HEAD_LOSS, SSD)]
# The targets' cases, with one thread and with all cores.
GOALS = [
    case
    for base in (HEAD_LOSS, SSD)
    for case in grid(base, threads=sorted({1, all_cores()}))
]
GROWTH: dict[str, list[Case]] = {
    'ground_truths': grid(ONE, ground_truths=[8, 40, 200, 800]),
    'anchors': grid(ONE, image=[(side, side) for side in (224, 352, 512, 736, 1024)]),
    'batch': grid(replace(HEAD_LOSS, height=256, width=256), batch=[1, 2, 4, 8, 16]),
    'stages': grid(ONE, stages=[2, 3, 4]),
}
# What differs between users: classes, crowds, size, precision, shapes of the images.
SETTINGS = (
    replace(ONE, classes=1),
    replace(ONE, classes=3),
    replace(ONE, classes=1203, height=256, width=256),
    replace(ONE, ground_truths=0),
    replace(ONE, dtype='bf16'),
    replace(ONE, height=500, width=833),
    replace(ONE, height=800, width=1333),
    replace(HEAD_LOSS, shapes='varied'),
    replace(SSD, batch=1, height=300, width=300),
    replace(SSD, batch=1, ground_truths=200),
    replace(SSD, batch=1, dtype='bf16'),
    replace(SSD, batch=8),
)


def _paper(case: Case, group: str, effort: float = 1.0) -> Task:
    return Task.of(case, contenders_of(case.detector), group, effort)


PRESETS: dict[str, list[Task]] = {
    'head_loss': [_paper(case, 'head_loss') for case in GOALS],
    'detector': [
        *(_paper(case, case.workload, effort) for case, effort in WHOLE),
        *(_paper(case, 'postprocess') for case in POST),
    ],
    'additions': [
        Task.of(case, (*BOTH, *ADDITIONS), case.workload, effort)
        for case, effort in WHOLE
    ],
    'growth': [
        Task.of(case, BOTH, f'growth:{name}')
        for name, cases in GROWTH.items()
        for case in cases
    ],
    'settings': [Task.of(case, BOTH, 'settings') for case in SETTINGS],
    'modes': [
        Task.of(HEAD_LOSS, (*BOTH, f'{OURS}+compile'), 'modes'),
        Task.of(
            TRAIN, (*BOTH, *(f'{name}+channels_last' for name in BOTH)), 'modes', 8.0
        ),
    ],
}
PRESETS['all'] = [task for tasks in PRESETS.values() for task in tasks]
# What the table of targets needs.
PRESETS['targets'] = [
    *(Task.of(case, TRIO, 'head_loss') for case in GOALS),
    *(Task.of(case, BOTH, case.workload, effort) for case, effort in WHOLE),
    *PRESETS['growth'],
]
# A look in under a minute: the head loss, and both ends of growth.
PRESETS['quick'] = [
    *(Task.of(case, TRIO, 'head_loss') for case in (HEAD_LOSS, SSD)),
    *(
        Task.of(case, BOTH, f'growth:{name}')
        for name, cases in GROWTH.items()
        for case in (cases[0], cases[-1])
    ),
]


def preset(names: Sequence[str], devices: Sequence[str] = ('cpu',)) -> list[Task]:
    """Return the tasks of some presets, each case once per device.

    On CUDA the number of threads means nothing, so a case appears once.
    """
    tasks = []
    for device in devices:
        changes = {} if device == 'cpu' else dict(device=device, threads=1)
        for task in (task for name in names for task in PRESETS[name]):
            tasks.append(replace(task, case=replace(task.case, **changes)))
    return merge_tasks(tasks)
