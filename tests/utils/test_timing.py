import gc
import time

import pytest

from mmdet_consistent.utils.timing import alternate, device_clock, ratios, summarize


class FakeClock:
    """Time passes only when somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def worker(name, seconds, clock, log):
    """Takes the given times, one after the other."""
    times = iter(seconds)

    def run(given_clock):
        assert given_clock is clock
        start = given_clock()
        log.append(name)
        clock.now += next(times)
        return dict(total=given_clock() - start)

    return run


def test_alternate_runs_contenders_in_turn_and_changes_the_first():
    clock, log = FakeClock(), []
    runs = {name: worker(name, [1.0] * 5, clock, log) for name in 'abc'}
    alternate(runs, clock, warmup=1, repetitions=4, seconds=1e9)
    assert ''.join(log) == 'abc' + 'abcbcacababc'


def test_ratios_ignore_warmup_and_a_machine_that_slows_down():
    clock, log = FakeClock(), []
    # From the third repetition on everything takes ten times as long.
    runs = {
        'mmdet': worker('mmdet', [99, 2, 2, 20, 20, 20], clock, log),
        'ours': worker('ours', [99, 1, 1, 10, 10, 10], clock, log),
    }
    samples = alternate(runs, clock, warmup=1, repetitions=5, seconds=1e9)
    assert samples['ours']['total'] == pytest.approx([1, 1, 10, 10, 10])
    ratio = ratios(samples['ours']['total'], samples['mmdet']['total'])
    assert tuple(summarize(ratio)) == pytest.approx((0.5, 0.5, 0.5))


def test_alternate_stops_after_the_given_seconds_but_runs_five_rounds():
    def rounds(seconds, repetitions=20):
        clock, log = FakeClock(), []
        runs = {'a': worker('a', [1.0] * 30, clock, log)}
        alternate(runs, clock, warmup=0, repetitions=repetitions, seconds=seconds)
        return len(log)

    assert rounds(seconds=0) == 5
    assert rounds(seconds=8) == 8
    assert rounds(seconds=100) == 20
    assert rounds(seconds=0, repetitions=2) == 2


def test_alternate_disables_the_garbage_collector_while_timing():
    seen = []

    def run(clock):
        seen.append(gc.isenabled())
        if len(seen) == 4:
            raise RuntimeError('broken contender')
        return dict(total=1.0)

    with pytest.raises(RuntimeError, match='broken contender'):
        alternate({'a': run}, FakeClock(), warmup=1, repetitions=9, seconds=1e9)
    assert seen == [True, False, False, False]
    assert gc.isenabled()


def test_summarize_returns_median_and_quartiles():
    assert tuple(summarize([5, 1, 4, 2, 3])) == (3, 2, 4)
    assert tuple(summarize([7.0])) == (7, 7, 7)
    with pytest.raises(ValueError, match='repetitions must be at least 1'):
        summarize([])


def test_cpu_clock_does_not_count_waiting():
    seconds = {}
    for cpu_time in (False, True):
        clock = device_clock('cpu', cpu_time)
        start = clock()
        time.sleep(0.2)
        seconds[cpu_time] = clock() - start
    assert seconds[False] >= 0.2
    assert seconds[True] < 0.1
