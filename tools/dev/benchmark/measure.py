"""From a task to its rows: build, warm up, alternate, weigh."""

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Optional

import torch

from mmdet_consistent.utils.timing import (
    Samples,
    Summary,
    alternate,
    device_clock,
    ratios,
    summarize,
)

from .cases import Task
from .contenders import REFERENCE, split_contender
from .memory import peak_memory
from .results import COMPILATION, COUNT, GRAPHS, MEGABYTES, MEMORY, SECONDS, Row
from .workloads import HeadLoss, build_workloads

# Part to its unit and its value, of each contender.
Figures = dict[str, dict[str, tuple[str, float]]]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads within an operation, for a while."""
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
) -> list[Row]:
    """Measure one task.

    Args:
        task: The case and its contenders.
        warmup: Rounds before the timed ones.
        repetitions: Rounds at most.
        seconds: Times the task's effort: no new round after this time (five
            are made in any case).
        cpu_time: Count processor time; see :func:`device_clock`.

    Returns:
        A row for each contender and part, and its peak memory, which is taken
        in one more round whose time does not count. (On the CPU only of the
        head loss: the convolutions of a whole detector allocate outside of
        PyTorch's books.)
    """
    case = task.case
    figures: Figures = {}
    with torch_threads(case.threads):
        works, anchors = build_workloads(case, task.contenders)
        for name, work in works.items():
            figures[name] = {}
            if split_contender(name)[1] == 'compile':
                figures[name].update(_compile(work))
        samples = alternate(
            works,
            device_clock(case.device, cpu_time),
            warmup=warmup,
            repetitions=repetitions,
            seconds=seconds * task.effort,
        )
        if case.device == 'cuda' or case.workload == 'head_loss':
            for name, work in works.items():
                work.reset()
                peak = peak_memory(work.once, case.device) / 1e6
                figures[name][MEMORY] = (MEGABYTES, peak)
    del works
    gc.collect()
    return make_rows(task, anchors, samples, figures)


def _compile(work: HeadLoss) -> dict[str, tuple[str, float]]:
    """Let torch.compile work: its first two runs, and the graphs it made.

    The second run may compile again, with shapes that are allowed to vary.
    """
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    start = time.perf_counter()
    for _ in range(2):
        work.reset()
        work.once()
    seconds = time.perf_counter() - start
    graphs = counters['stats']['unique_graphs']
    return {COMPILATION: (SECONDS, seconds), GRAPHS: (COUNT, float(graphs))}


def make_rows(
    task: Task, anchors: int, samples: Samples, figures: Mapping[str, dict]
) -> list[Row]:
    """Join times and single figures to rows, with their ratios to mmdet's.

    Args:
        task: What was measured.
        anchors: Of one image.
        samples: The seconds of every round.
        figures: What was measured once, by contender and part.
    """

    def row(
        part: str, unit: str, value: Summary, ratio: Optional[Summary], count: int
    ) -> Row:
        return Row(
            task.case, task.groups, name, part, unit, value, ratio, count, anchors
        )

    rows = []
    for name, parts in samples.items():
        for part, values in parts.items():
            ratio = None
            if REFERENCE in samples:
                ratio = summarize(ratios(values, samples[REFERENCE][part]))
            rows.append(row(part, SECONDS, summarize(values), ratio, len(values)))
        for part, (unit, value) in figures.get(name, {}).items():
            reference = figures.get(REFERENCE, {}).get(part)
            ratio = summarize([value / reference[1]]) if reference else None
            rows.append(row(part, unit, summarize([value]), ratio, 1))
    return rows
