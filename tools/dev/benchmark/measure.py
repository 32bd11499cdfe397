"""From a task to its rows: build, warm up, alternate, record the memory."""

import gc
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

import pandas as pd
import torch

from mmdet_consistent.utils.timing import (
    Samples,
    alternate,
    device_clock,
    ratios,
    summarize,
)

from .cases import REFERENCE, Contender, Task
from .memory import peak_memory
from .results import COLUMNS, COMPILATION, GRAPHS, MEMORY, RATIO, VALUE
from .workloads import Workload, prepare

NO_BF16 = "mmcv's focal loss does not support bfloat16 on CUDA"
# Part to (unit, value).
Figures = dict[str, tuple[str, float]]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of threads within an operation for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(
    task: Task,
    *,
    warmup: int = 1,
    repetitions: int = 15,
    seconds: float = 5.0,
    cpu_time: bool = False,
) -> tuple[pd.DataFrame, list[str]]:
    """Measure one task. A contender that fails does not stop the others.

    Args:
        task: The case and its contenders.
        warmup: Rounds before the timed ones, at least 1.
        repetitions: Rounds at most.
        seconds: Times the task's effort: no new round starts after this time (five
            are made in any case).
        cpu_time: Count processor time; see :func:`device_clock`.

    Returns:
        A row per contender and part (see ``results``), and the errors.
        The peak memory is taken in one more round whose time does not count; on the
        CPU of the head loss only, because the convolutions of a whole detector do
        not allocate through PyTorch.
    """
    case = task.case
    works: dict[str, Workload] = {}
    figures: dict[str, Figures] = {}
    errors: list[str] = []
    with torch_threads(case.threads):
        build, anchors = prepare(case)
        for contender in task.contenders:
            if contender.lacks_operator(case):
                print(f'{contender.name} is skipped: {NO_BF16}', file=sys.stderr)
                continue
            try:
                work = build(contender)
                figures[contender.name] = first_run(work, contender)
            except Exception as error:  # others can be measured nevertheless
                errors.append(f'{contender.name}: {type(error).__name__}: {error}')
            else:
                works[contender.name] = work
        if not works:
            return make_rows(task, anchors, {}, {}), errors
        samples = alternate(
            works,
            device_clock(case.device, cpu_time),
            warmup=warmup - 1,
            repetitions=repetitions,
            seconds=seconds * task.effort,
        )
        if case.device == 'cuda' or case.workload == 'head_loss':
            for name, work in works.items():
                work.reset()
                peak = peak_memory(work.once, case.device) / 1e6
                figures[name][MEMORY] = ('MB', peak)
    del works
    gc.collect()
    return make_rows(task, anchors, samples, figures), errors


def first_run(work: Workload, contender: Contender) -> Figures:
    """Run the work for the first time; return what torch.compile took, if used."""
    if contender.mode != 'compile':
        work.reset()
        work.once()
        return {}
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    start = time.perf_counter()
    # The second run may compile again, with shapes that are allowed to vary.
    for _ in range(2):
        work.reset()
        work.once()
    seconds = time.perf_counter() - start
    graphs = counters['stats']['unique_graphs']
    return {COMPILATION: ('s', seconds), GRAPHS: ('n', float(graphs))}


def make_rows(
    task: Task, anchors: int, samples: Samples, figures: Mapping[str, Figures]
) -> pd.DataFrame:
    """Join times and single figures to rows, with their ratios to mmdet's.

    Args:
        task: The measured task.
        anchors: Number of anchors per image.
        samples: Seconds of every round.
        figures: Figures that were taken once, by contender.
    """
    # Contender to part to unit and values.
    found: dict[str, dict] = {
        name: {
            **{part: ('s', values) for part, values in parts.items()},
            **{part: (unit, [value]) for part, (unit, value) in figures[name].items()},
        }
        for name, parts in samples.items()
    }
    common = dict(groups=';'.join(task.groups), **asdict(task.case), anchors=anchors)
    rows = []
    for name, parts in found.items():
        for part, (unit, values) in parts.items():
            row = dict(common, contender=name, part=part, unit=unit)
            row.update(zip(VALUE, summarize(values)), repetitions=len(values))
            _, reference = found.get(REFERENCE, {}).get(part, (unit, None))
            if reference:
                row.update(zip(RATIO, summarize(ratios(values, reference))))
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)
