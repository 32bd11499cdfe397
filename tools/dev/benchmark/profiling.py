"""Operations in which the head loss spends its time."""

from torch.profiler import ProfilerActivity, profile

from .cases import Case, Contender
from .measure import torch_threads
from .workloads import prepare


def profile_head_loss(
    case: Case, name: str, count: int = 10, repetitions: int = 3
) -> list[tuple[str, float, float, int]]:
    """Return the most expensive of PyTorch's operations, most expensive first.

    Args:
        case: A head-loss case.
        name: Name of the contender.
        count: Number of operations to return.
        repetitions: Profiled runs, after one that is not; figures are means.

    Returns:
        For each operation: name, seconds spent in it alone (not in what it calls),
        the fraction of all seconds, and the number of calls.
    """
    activities, fields = [ProfilerActivity.CPU], ['self_cpu_time_total']
    if case.device == 'cuda':
        activities.append(ProfilerActivity.CUDA)
        # Older versions of PyTorch have the second name.
        fields = ['self_device_time_total', 'self_cuda_time_total']
    with torch_threads(case.threads):
        work = prepare(case)[0](Contender.parse(name))
        work.once()
        with profile(activities=activities) as profiler:
            for _ in range(repetitions):
                work.reset()
                work.once()
    events = profiler.key_averages()
    field = next(field for field in fields if hasattr(events[0], field))
    spent = {event.key: getattr(event, field) for event in events}
    calls = {event.key: round(event.count / repetitions) for event in events}
    total = sum(spent.values())
    return [
        (key, spent[key] / 1e6 / repetitions, spent[key] / total, calls[key])
        for key in sorted(spent, key=spent.get, reverse=True)[:count]
    ]
