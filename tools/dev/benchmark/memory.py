"""Peak memory of a piece of work, beyond what was allocated before it."""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def running_peak(changes: Iterable[int]) -> int:
    """Return the highest running sum of allocations (> 0) and releases (< 0)."""
    total = peak = 0
    for change in changes:
        total += change
        peak = max(peak, total)
    return peak


def peak_memory(work: Callable[[], object], device: str) -> int:
    """Return the bytes that PyTorch held at the peak of the work.

    On the CPU, PyTorch's profiler records every allocation and release, which are
    summed up in order of time; memory that was allocated before counts neither when
    it is used nor when it is released. On CUDA it is the allocator's own peak.

    Args:
        work: Function to run once.
        device: ``'cpu'`` or ``'cuda'``.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())['traceEvents']
    # Device type 0 is the CPU. The trace is not in order of time.
    memory = [
        event
        for event in events
        if event.get('name') == '[memory]' and event['args']['Device Type'] == 0
    ]
    memory.sort(key=lambda event: (event['ts'], event['args'].get('Ev Idx', 0)))
    return running_peak(event['args']['Bytes'] for event in memory)
