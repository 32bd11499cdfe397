"""A killed training is compared with uninterrupted ones."""

import json
from types import SimpleNamespace

import pytest
import torch

from tools.dev.gpu import resume
from tools.dev.gpu.resume import DRY, check_resume


class FakeTraining:
    """A training of no steps that logs ``losses``."""

    losses: dict = {}

    def __init__(self, config, *arguments, env):
        self.folder = resume.Path(arguments[arguments.index('--work-dir') + 1])
        self.resumed = '--resume' in arguments
        self.steps, self.status, self.lines = DRY.epochs * DRY.steps, None, []
        self.process = SimpleNamespace(poll=lambda: self.status, kill=self.kill)

    def kill(self):
        if self.status is None:
            self.status = -9
            self.write('first', range(1, 7), self.losses['whole'])

    def wait_for(self, done):
        assert done()

    def finish(self):
        if self.status is None:
            self.status = 0
            name = 'resumed' if self.resumed else self.folder.name
            steps = range(5 if self.resumed else 1, 9)
            self.write(name, steps, self.losses[name])
            state = dict(state_dict=dict(w=torch.ones(1)), optimizer={})
            torch.save(state, self.folder / f'epoch_{DRY.epochs}.pth')
        return self.status

    def write(self, name, steps, losses):
        path = self.folder / name / 'scalars.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [dict(loss=loss, step=step) for step, loss in zip(steps, losses)]
        lines = map(json.dumps, [*entries, dict(mAP=0.1, step=2)])
        path.write_text('\n'.join(lines) + '\n')

    def resumed_epoch(self):
        return 1 if self.resumed else None


@pytest.fixture
def train(monkeypatch):
    """Set the losses of the three trainings."""
    monkeypatch.setattr(resume, 'Training', FakeTraining)

    def train(whole, resumed, again=()):
        losses = dict(whole=whole, resumed=resumed, again=again)
        monkeypatch.setattr(FakeTraining, 'losses', losses)

    return train


WHOLE = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ('last', 'passed', 'value'),
    [
        (1.0, 'yes', 'weights, optimizer states, logs: equal bit for bit'),
        (1.0000001, 'no', 'logs differ, losses by up to 1.0e-07'),
    ],
)
def test_deterministic_training_must_resume_bit_for_bit(
    train, tmp_path, last, passed, value
):
    train(WHOLE, [4.0, 3.0, 2.0, last])
    [row] = check_resume(DRY, True, tmp_path)
    assert (row.passed, row.value) == (passed, value)
    assert row.check == 'killed in epoch 2 and resumed, 4 steps'


@pytest.mark.parametrize(('last', 'passed'), [(1.29, 'yes'), (1.31, 'no')])
def test_other_training_may_differ_three_times_as_two_uninterrupted_ones(
    train, tmp_path, last, passed
):
    train(WHOLE, [4.0, 3.0, 2.0, last], again=[*WHOLE[:-1], 1.1])
    spread, row = check_resume(DRY, False, tmp_path)
    assert (spread.value, spread.passed) == ('1.0e-01', '')
    assert row.passed == passed


def test_failed_training_is_named_with_its_last_line(train, tmp_path, monkeypatch):
    train(WHOLE, WHOLE)

    def fail(self):
        self.lines = ['Traceback', 'OutOfMemoryError: 3 GB']
        return 1

    monkeypatch.setattr(FakeTraining, 'finish', fail)
    with pytest.raises(RuntimeError, match='killed training failed: OutOfMemoryError'):
        list(check_resume(DRY, True, tmp_path))


def test_training_that_ends_before_the_kill_is_an_error(train, tmp_path, monkeypatch):
    train(WHOLE, WHOLE)

    def ends(self, done):
        self.status = 0

    monkeypatch.setattr(FakeTraining, 'wait_for', ends)
    with pytest.raises(RuntimeError, match='ended before it could be killed'):
        list(check_resume(DRY, True, tmp_path))
