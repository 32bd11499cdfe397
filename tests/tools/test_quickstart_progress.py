"""The progress lines of tools/quickstart.py, and the places that it draws."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.processes import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import quickstart


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(monkeypatch, stream, step=lambda i: 1.0, epochs=3, length=20):
    """Report the steps of both trainings, of given seconds, and return the output."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(quickstart.time, 'perf_counter', lambda: clock.now)
    line = quickstart.Progress(stream)
    total = epochs * length
    for i in range(total):
        clock.now += step(i)
        message = dict(
            done=i + 1,
            total=total,
            epoch=i // length + 1,
            max_epochs=epochs,
            ends_epoch=(i + 1) % length == 0,
            loss=1.0,
        )
        for name in quickstart.MODELS:
            line.update(name, message)
    return stream.getvalue()


def test_log_has_a_line_per_epoch_and_no_estimate_before_the_pace_is_steady(
    monkeypatch,
):
    output = progress(
        monkeypatch, io.StringIO(), step=lambda i: 60.0 if i == 0 else 1.0
    )
    assert output.splitlines() == [
        'RetinaNet: epoch 1/3',
        'ConRetinaNet: epoch 1/3',
        'RetinaNet: epoch 2/3, about 0 min 22 s left',
        'ConRetinaNet: epoch 2/3, about 0 min 20 s left',
        'RetinaNet: epoch 3/3, about 0 min 01 s left',
        'ConRetinaNet: epoch 3/3, about 0 min 00 s left',
    ]


def test_terminal_has_one_line_that_is_rewritten(monkeypatch):
    output = progress(monkeypatch, Terminal())
    assert output.count('\n') == 1
    assert output.endswith('\n')
    lines = output.rstrip('\n').split('\r')[1:]
    assert lines[-1].startswith('RetinaNet 100 %, ConRetinaNet 100 %, about 0 min 00 s')
    assert {len(line) for line in lines} == {79}


@pytest.mark.parametrize('slow', [3, 45])
def test_estimate_does_not_jump_after_a_slow_step(monkeypatch, slow):
    output = progress(
        monkeypatch, Terminal(), step=lambda i: 30.0 if i == slow else 1.0
    )
    lefts = [
        60 * int(line.split('about ')[1].split(' min')[0])
        + int(line.split(' min ')[1].split(' s')[0])
        for line in output.split('\r')
        if 'about' in line
    ]
    assert max(lefts) < 200
    assert all(abs(a - b) < 65 for a, b in zip(lefts, lefts[1:]))


def test_crowded_places_are_the_worst_overlaps_one_per_image():
    boxes = {
        1: [[0, 0, 10, 10], [8, 0, 10, 10], [50, 50, 10, 10]],
        2: [[0, 0, 10, 10], [30, 0, 10, 10], [32, 0, 10, 10], [0, 0, 10, 9.9]],
        3: [[0, 0, 10, 10]],
        4: [],
    }
    coco = dict(
        images=[dict(id=i) for i in boxes],
        annotations=[dict(image_id=i, bbox=b) for i, own in boxes.items() for b in own],
    )
    places = quickstart.crowded_places(coco, 2)
    assert [info['id'] for info, _ in places] == [2, 1]
    np.testing.assert_array_equal(places[0][1], [[30, 0, 40, 10], [32, 0, 42, 10]])
    np.testing.assert_array_equal(places[1][1], [[0, 0, 10, 10], [8, 0, 18, 10]])
