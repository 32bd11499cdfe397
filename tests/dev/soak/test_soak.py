"""The soak trains under faults, and would notice if anything were lost."""

import json
import os
import sys

import pytest
import torch

from tests.support.processes import run
from tools.dev.soak.training import equal, outcome


@pytest.mark.slow
def test_a_training_under_faults_ends_as_in_peace(tmp_path):
    output = run(
        sys.executable, '-m', 'tools.dev.soak', '--minutes', 10, '--rounds', 1,
        '--epochs', 4, '--seed', 3, '--work-dir', tmp_path,
    )  # fmt: skip
    report = (tmp_path / 'report.md').read_text()
    assert report in output
    assert '| 1 of 1 |' in report
    assert '| things that went wrong | 0 |' in report
    # How far the faults come is a matter of time, that there is one isn't.
    assert 'SIG' in report
    assert not (tmp_path / 'disk/filler').exists()
    assert not os.path.ismount(tmp_path / 'disk')


@pytest.mark.parametrize(
    ('other', 'same'),
    [
        ({'a': torch.tensor([1.0, 2.0]), 'b': [1, (2, 'x')]}, True),
        ({'a': torch.tensor([1.0, 2.0000002]), 'b': [1, (2, 'x')]}, False),
        ({'a': torch.tensor([1.0, 2.0]), 'b': [1, (3, 'x')]}, False),
        ({'a': torch.tensor([1.0, 2.0]), 'b': [1]}, False),
        ({'a': [1.0, 2.0], 'b': [1, (2, 'x')]}, False),
        ({'a': torch.tensor([1.0, 2.0])}, False),
        (None, False),
    ],
)
def test_what_is_equal(other, same):
    one = {'a': torch.tensor([1.0, 2.0]), 'b': [1, (2, 'x')]}
    assert equal(one, other) is same


def test_a_step_with_two_values_is_seen(tmp_path):
    torch.save(dict(state_dict={}, optimizer={}), tmp_path / 'epoch_1.pth')
    logs = tmp_path / 'run' / 'scalars.json'
    logs.parent.mkdir()
    steps = [dict(loss=3.0, step=1, time=0.1), dict(loss=2.0, step=2, time=0.1)]
    lines = [json.dumps(step) for step in steps]
    # Taken again after a kill that cut a line off.
    again = [json.dumps(dict(steps[1], time=0.7)), lines[0][:9]]
    logs.write_text('\n'.join(lines + again))
    found = outcome(tmp_path, 1)['logs']
    assert found == {
        ('loss', 1): dict(loss=3.0, step=1),
        ('loss', 2): dict(loss=2.0, step=2),
    }
    logs.write_text('\n'.join([*lines, json.dumps(dict(steps[1], loss=2.5))]))
    assert not equal(outcome(tmp_path, 1)['logs'], found)
