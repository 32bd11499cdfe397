"""Alternating repetitions, and their medians, quartiles and ratios.

Contenders take turns, one repetition each, and a ratio is that of two
neighbours in time. A machine that slows down slows both, and the ratio stands.
"""

import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

import torch

Clock = Callable[[], float]
# Seconds of each part of one repetition: {'forward': …, 'backward': …}.
Parts = dict[str, float]
Samples = dict[str, dict[str, list[float]]]


class Summary(NamedTuple):
    """Median and quartiles."""

    median: float
    q1: float
    q3: float


def summarize(values: Sequence[float]) -> Summary:
    """Median and quartiles; of one value, that value.

    Raises:
        ValueError: If there is none.
    """
    if not values:
        raise ValueError('no repetition to summarize: repetitions must be at least 1')
    if len(values) == 1:
        return Summary(values[0], values[0], values[0])
    q1, median, q3 = statistics.quantiles(values, n=4, method='inclusive')
    return Summary(median, q1, q3)


def ratios(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Repetition by repetition."""
    return [value / ref for value, ref in zip(values, reference)]


def device_clock(device: str, cpu_time: bool = False) -> Clock:
    """A clock in seconds that waits for the device's queue first.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
        cpu_time: On the CPU, count what this process computes in all its
            threads, not what it waits while others have the processor.
    """
    if device == 'cpu':
        return time.process_time if cpu_time else time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def alternate(
    runs: Mapping[str, Callable[[Clock], Parts]],
    clock: Clock,
    *,
    warmup: int,
    repetitions: int,
    seconds: float,
    least: int = 5,
) -> Samples:
    """Run all contenders in turn, and collect their times.

    Args:
        runs: Contender to one repetition of its work, which is handed the
            clock and returns the seconds of each of its parts.
        clock: In seconds.
        warmup: Rounds whose times are thrown away.
        repetitions: Rounds at most.
        seconds: No new round once the timed ones have taken this long …
        least: … but this many rounds in any case (never above repetitions).

    Returns:
        Contender to part to the seconds of every round. The contender that
        begins changes from round to round, so that no one always follows the
        same neighbour's cache.
    """
    names = list(runs)
    samples: Samples = {name: {} for name in names}
    for _ in range(warmup):
        for name in names:
            runs[name](clock)
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        for round_ in range(repetitions):
            if round_ >= least and clock() - start >= seconds:
                break
            first = round_ % len(names)
            for name in names[first:] + names[:first]:
                for part, value in runs[name](clock).items():
                    samples[name].setdefault(part, []).append(value)
    finally:
        if was_enabled:
            gc.enable()
    return samples
