"""The progress line of tools/quickstart.py."""

import io
import sys
from types import SimpleNamespace

import pytest

from tests.support.processes import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import quickstart


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(monkeypatch, stream, step=lambda i: 1.0, epochs=3, length=20):
    """Run the hook over steps of given seconds and return what it prints."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(quickstart.time, 'perf_counter', lambda: clock.now)
    hook = quickstart.ProgressHook('RetinaNet', runs_left=1)
    hook.stream = stream
    total = epochs * length
    for i in range(total):
        runner = SimpleNamespace(
            iter=i,
            epoch=i // length,
            max_epochs=epochs,
            max_iters=total,
            train_dataloader=range(length),
        )
        hook.before_train_iter(runner)
        clock.now += step(i)
        outputs = {'loss': 1.0, 'num_pos': 2.0}
        hook.after_train_iter(runner, i % length, None, outputs)
    return stream.getvalue()


def test_log_has_a_line_per_epoch_and_no_estimate_before_the_pace_is_steady(
    monkeypatch,
):
    output = train(monkeypatch, io.StringIO(), step=lambda i: 60.0 if i == 0 else 1.0)
    assert output.splitlines() == [
        'RetinaNet: epoch 1/3, 33 %, loss 1.000',
        'RetinaNet: epoch 2/3, 66 %, loss 1.000, about 1 min 20 s left',
        'RetinaNet: epoch 3/3, 100 %, loss 1.000, about 1 min 00 s left',
    ]


def test_terminal_has_one_line_that_is_rewritten(monkeypatch):
    output = train(monkeypatch, Terminal())
    assert output.count('\n') == 1
    assert output.rstrip().endswith('about 1 min 00 s left')
    assert output.count('\r') == 60
    assert {len(line) for line in output.rstrip('\n').split('\r')[1:]} == {79}


@pytest.mark.parametrize('slow', [3, 45])
def test_estimate_does_not_jump_after_a_slow_step(monkeypatch, slow):
    output = train(monkeypatch, Terminal(), step=lambda i: 30.0 if i == slow else 1.0)
    lefts = [
        60 * int(line.split('about ')[1].split(' min')[0])
        + int(line.split(' min ')[1].split(' s')[0])
        for line in output.split('\r')
        if 'about' in line
    ]
    assert max(lefts) < 200
    assert all(abs(a - b) < 65 for a, b in zip(lefts, lefts[1:]))
