"""Where the head loss spends its time, operation by operation."""

from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile

from .cases import Case
from .measure import torch_threads
from .workloads import build_workloads


class Operation(NamedTuple):
    """One of PyTorch's operations, in one forward and backward.

    Attributes:
        name: Its name.
        seconds: Spent in it alone, not in what it calls.
        share: Of all seconds.
        calls: How often it ran.
    """

    name: str
    seconds: float
    share: float
    calls: int


def profile_head_loss(
    case: Case, contender: str, count: int = 10, repetitions: int = 3
) -> list[Operation]:
    """The operations that cost most, most expensive first.

    Args:
        case: A head-loss case.
        contender: Whose.
        count: Operations to return.
        repetitions: Profiled runs, after one that is not; figures are means.
    """
    activities = [ProfilerActivity.CPU]
    if case.device == 'cuda':
        activities.append(ProfilerActivity.CUDA)
    with torch_threads(case.threads):
        works, _ = build_workloads(case, (contender,))
        work = works[contender]
        work.once()
        with profile(activities=activities) as profiler:
            for _ in range(repetitions):
                work.reset()
                work.once()
    averages = profiler.key_averages()
    if case.device == 'cuda':
        spent = {event.key: event.self_device_time_total for event in averages}
    else:
        spent = {event.key: event.self_cpu_time_total for event in averages}
    calls = {event.key: event.count for event in averages}
    total = sum(spent.values())
    top = sorted(spent, key=spent.get, reverse=True)[:count]
    return [
        Operation(
            name,
            spent[name] / 1e6 / repetitions,
            spent[name] / total,
            round(calls[name] / repetitions),
        )
        for name in top
    ]
