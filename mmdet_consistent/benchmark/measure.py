"""From a task to its rows: build, warm up, alternate, weigh."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .cases import Task
from .contenders import REFERENCE
from .memory import peak_memory
from .results import MEGABYTES, MEMORY, SECONDS, Row
from .timing import Summary, alternate, device_clock, ratios, summarize
from .workloads import build_workloads


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
    task: Task, *, warmup: int = 1, repetitions: int = 15, seconds: float = 5.0
) -> list[Row]:
    """Measure one task.

    Args:
        task: The case and its contenders.
        warmup: Rounds before the timed ones.
        repetitions: Rounds at most.
        seconds: No new round after this time (five are made in any case).

    Returns:
        A row for each contender and part, and its peak memory, which is taken
        in one more round whose time does not count. (On the CPU only of the
        head loss: the convolutions of a whole detector allocate outside of
        PyTorch's books.)
    """
    case = task.case
    with torch_threads(case.threads):
        works, anchors = build_workloads(case, task.contenders)
        samples = alternate(
            works,
            device_clock(case.device),
            warmup=warmup,
            repetitions=repetitions,
            seconds=seconds,
        )
        peaks = {}
        if case.device == 'cuda' or case.workload == 'head_loss':
            for name, work in works.items():
                work.reset()
                peaks[name] = peak_memory(work.once, case.device) / 1e6
    del works
    gc.collect()

    rows = []
    for name, parts in samples.items():
        reference = samples.get(REFERENCE)
        for part, values in parts.items():
            ratio = summarize(ratios(values, reference[part])) if reference else None
            rows.append(
                Row(
                    case, task.groups, name, part, SECONDS,
                    summarize(values), ratio, len(values), anchors,
                )
            )  # fmt: skip
        if name in peaks:
            ratio = None
            if REFERENCE in peaks:
                ratio = Summary(*[peaks[name] / peaks[REFERENCE]] * 3)
            rows.append(
                Row(
                    case, task.groups, name, MEMORY, MEGABYTES,
                    Summary(*[peaks[name]] * 3), ratio, 1, anchors,
                )
            )  # fmt: skip
    return rows
