"""Time contenders alternately, and summarise the times and their ratios.

Contenders take turns, one repetition each, and a ratio compares two neighbours in time:
a machine that slows down slows both, and does not change the ratio.
"""

import gc
import time
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

import numpy as np
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
    """Return median and quartiles; for a single value, that value.

    Raises:
        ValueError: If there is no value.
    """
    if not values:
        raise ValueError('no repetition to summarize: repetitions must be at least 1')
    return Summary(*np.quantile(values, [0.5, 0.25, 0.75]).tolist())


def ratios(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Divide repetition by repetition."""
    return [value / ref for value, ref in zip(values, reference)]


def device_clock(device: str, cpu_time: bool = False) -> Clock:
    """Return a clock in seconds that first waits for the device's queue.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
        cpu_time: On the CPU, count the computing time of all threads of this process
            instead of the elapsed time.
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
        runs: Contender to one repetition of its work: a function of the clock that
            returns the seconds of each part.
        clock: Clock in seconds.
        warmup: Number of rounds that are not timed.
        repetitions: Largest number of timed rounds.
        seconds: No new round starts after this time …
        least: … but at least this many rounds run (at most ``repetitions``).

    Returns:
        Contender to part to the seconds of each round. Another contender begins each
        round, so that none always finds the same neighbour's cache.
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
