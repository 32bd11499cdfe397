"""The study's table for a GPU: rows as they come, failures alone, and its page."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from tools.dev.docs import gpu_page
from tools.dev.gpu import table
from tools.dev.gpu.rows import Row
from tools.dev.gpu.table import DRY, REAL, jobs, train_table
from tools.dev.study import runs
from tools.dev.study.numbers import METRICS
from tools.dev.study.tables import TABLES

CONFIDENT = TABLES['gpu'].rows['recommended']


def train(plan, folder, end=float('inf')):
    rows = train_table(plan, folder, folder / 'gpu_table.csv', 2, end)
    return list(rows)


@pytest.fixture
def fake(monkeypatch):
    """Trainings that fail for one row with one seed."""

    def run(job, end):
        if (job.row, job.seed) == (CONFIDENT, 1):
            raise RuntimeError('CUDA error: out of memory')
        gain = {'baseline': 0, 'default': 1, CONFIDENT: 2}[job.row]
        metrics = dict.fromkeys(METRICS, 40.0 + gain + job.seed)
        return dict(metrics=metrics, positives=[9.0], step_seconds=0.05)

    monkeypatch.setattr(table, 'run_isolated', run)


def test_failing_training_costs_its_own_row_only(fake, tmp_path):
    rows = train(REAL, tmp_path)
    assert len(rows) == 15
    failed = [row for row in rows if row.passed == 'no']
    value = 'RuntimeError: CUDA error: out of memory'
    assert failed == [Row('training', 'recommended, seed 1', value, 'no')]
    value = 'AP 42.0, 50 ms per step'
    assert Row('training', 'consistent, seed 1', value, '') in rows


def test_page_shows_the_table_and_paired_differences(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_page, 'RESULTS', tmp_path)
    train(REAL, tmp_path)
    text = '\n'.join(gpu_page.trained())
    assert '| consistent' in text
    assert '+1.0 ± 0.0' in text
    assert '+2.0 ± 0.0' in text
    assert text.count('| 4') >= 1  # seeds of the row that failed once


def test_page_says_which_part_has_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_page, 'RESULTS', tmp_path)
    (tmp_path / 'gpu_heads.csv').write_text(
        'check,setting,value,passed\ndevice,card,PyTorch 2,\n'
    )
    assert 'Not yet run' not in '\n'.join(gpu_page.measured('heads'))
    text = '\n'.join(gpu_page.measured('training'))
    assert 'Not yet run on a GPU' in text
    assert 'bash tools/dev/gpu_check.sh training' in text


def test_no_training_starts_when_the_time_is_up(tmp_path):
    rows = train(DRY, tmp_path, end=time.monotonic() - 1)
    assert len(rows) == 3
    assert {row.value for row in rows} == {'not trained: the time was up'}
    assert not (tmp_path / 'gpu_table.csv').exists()


def crash(job):
    os._exit(1)


def test_crash_of_a_process_is_an_error_of_its_own_job(tmp_path, monkeypatch):
    monkeypatch.setattr(table, 'ProcessPoolExecutor', lambda *_: ProcessPoolExecutor(1))
    monkeypatch.setattr(table, 'run_job', crash)
    with pytest.raises(BrokenProcessPool):
        table.run_isolated(jobs(DRY, tmp_path)[0], float('inf'))


def test_plans_differ_in_size_alone(tmp_path):
    """Every row of both plans has a config. The real one trains in half precision."""
    for plan in (REAL, DRY):
        rows = jobs(plan, tmp_path)
        assert {job.row for job in rows} == {job.row for job in rows[:3]}
        for job in rows[:3]:
            cfg = runs.job_config(job)
            assert cfg.model.backbone.type == 'EfficientNetLite'
            amp = cfg.optim_wrapper.type == 'AmpOptimWrapper'
            assert amp == (plan is REAL)
