import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tools.dev.soak.__main__ import FAULTS, Soak
from tools.dev.soak.training import equal, outcome

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_training_under_faults_equals_the_undisturbed_one(tmp_path):
    result = subprocess.run(
        [
            sys.executable, '-m', 'tools.dev.soak', '--minutes', '30', '--rounds', '1',
            '--epochs', '4', '--seed', '499', '--work-dir', str(tmp_path),
        ],
        cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS='1'), capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    report = (tmp_path / 'report.md').read_text()
    assert report in result.stdout
    assert '| 1 of 1 |' in report
    assert '| errors | 0 |' in report
    # With this seed the first fault strikes before the first step, so it always does.
    assert 'SIG' in report
    assert not (tmp_path / 'disk/filler').exists()
    assert not os.path.ismount(tmp_path / 'disk')


class FakeTraining:
    """A training that ended by itself, or else ends with -9 when killed."""

    def __init__(self, status=None):
        self.steps, self.lines = 9, []
        self.status = status
        self.process = SimpleNamespace(poll=lambda: self.status, kill=self.kill)

    def kill(self):
        if self.status is None:
            self.status = -9

    def wait_for(self, done):
        pass

    def finish(self):
        return self.status


@pytest.fixture
def soak(tmp_path):
    """A soak whose training left two checkpoints and a pointer to the last one."""
    soak = object.__new__(Soak)
    soak.folder, soak.random, soak.total_steps = tmp_path, random.Random(0), 24
    soak.faults, soak.wrong = Counter(), []
    for epoch in (9, 10):
        state = dict(weight=torch.rand(999))
        torch.save(dict(state_dict=state), tmp_path / f'epoch_{epoch}.pth')
    (tmp_path / 'last_checkpoint').write_text('epoch_10.pth')
    return soak


DAMAGE = [name for name, (_, damage) in FAULTS.items() if damage]


def files(soak):
    return {path.name: path.read_bytes() for path in soak.folder.iterdir()}


@pytest.mark.parametrize('name', DAMAGE)
def test_fault_damages_nothing_if_the_training_has_ended_well(soak, name):
    before = files(soak)
    assert soak.expose(name, FakeTraining(status=0))
    assert files(soak) == before
    assert not soak.faults
    assert not soak.wrong


@pytest.mark.parametrize('name', DAMAGE)
def test_fault_damages_the_newest_file_of_a_killed_training(soak, name):
    before = files(soak)
    assert not soak.expose(name, FakeTraining())
    after = files(soak)
    [changed] = [name for name in before if after[name] != before[name]]
    assert changed == ('last_checkpoint' if 'pointer' in name else 'epoch_10.pth')
    assert soak.faults == {name: 1}
    assert not soak.wrong


def test_expose_reports_a_training_that_failed_by_itself(soak):
    assert not soak.expose('SIGKILL', FakeTraining(status=1))
    assert re.search('failed without a fault', soak.wrong[0])


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
def test_equal_compares_nested_values_bit_for_bit(other, same):
    one = {'a': torch.tensor([1.0, 2.0]), 'b': [1, (2, 'x')]}
    assert equal(one, other) is same


def test_outcome_notices_two_values_for_one_step(tmp_path):
    torch.save(dict(state_dict={}, optimizer={}), tmp_path / 'epoch_1.pth')
    logs = tmp_path / 'run' / 'scalars.json'
    logs.parent.mkdir()
    steps = [dict(loss=3.0, step=1, time=0.1), dict(loss=2.0, step=2, time=0.1)]
    lines = [json.dumps(step) for step in steps]
    # The second step is repeated after a kill that cut a line off.
    again = [json.dumps(dict(steps[1], time=0.7)), lines[0][:9]]
    logs.write_text('\n'.join(lines + again))
    found = outcome(tmp_path, 1)['logs']
    assert found == {
        ('loss', 1): dict(loss=3.0, step=1),
        ('loss', 2): dict(loss=2.0, step=2),
    }
    logs.write_text('\n'.join([*lines, json.dumps(dict(steps[1], loss=2.5))]))
    assert not equal(outcome(tmp_path, 1)['logs'], found)
