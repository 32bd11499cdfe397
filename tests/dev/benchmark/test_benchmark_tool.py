import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from tools.dev.benchmark import history
from tools.dev.benchmark.cases import Case, Task
from tools.dev.benchmark.detectors import Cost
from tools.dev.benchmark.results import RATIO, read_csv, write_csv

ROOT = Path(__file__).resolve().parents[3]
TINY = ['--image', '64', '--classes', '3', '--repetitions', '2', '--seconds', '0']
BOTH = ('mmdet', 'consistent')


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The tool as a module, working in a temporary folder."""
    module = importlib.import_module('tools.dev.benchmark.__main__')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, 'DOCS', tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['benchmark', *map(str, arguments)])
        module.main()

    module.call = call
    return module


def test_custom_cases_are_shown_and_saved(tool, capsys, tmp_path):
    tool.call(*TINY, '--batch', 1, 2, '--contenders', *BOTH)
    output = capsys.readouterr().out
    assert 'RetinaNet, 1 × 64x64 pixels' in output
    assert 'RetinaNet, 2 × 64x64 pixels' in output
    rows, about = read_csv(tmp_path / 'work_dirs/benchmark/speed.csv')
    assert set(zip(rows['batch'], rows['contender'])) == {
        (1, 'mmdet'), (1, 'consistent'), (2, 'mmdet'), (2, 'consistent'),
    }  # fmt: skip
    assert 'torch' in about['versions']


def test_failing_case_does_not_stop_the_others(tool, capsys, tmp_path, monkeypatch):
    measure, saved = tool.measure, []
    csv = tmp_path / 'work_dirs/benchmark/speed.csv'

    def fail(task, **options):
        saved.append(csv.is_file())
        if task.case.batch == 2:
            raise MemoryError('too large')
        return measure(task, **options)

    monkeypatch.setattr(tool, 'measure', fail)
    with pytest.raises(SystemExit, match='1'):
        tool.call(*TINY, '--batch', 2, 1, 3, '--contenders', *BOTH)
    output = capsys.readouterr()
    assert 'RetinaNet, 3 × 64x64 pixels' in output.out
    assert output.err.count('MemoryError: too large') == 2  # at once, and at the end
    assert 'head_loss: RetinaNet, 2 × 64x64 pixels' in output.err
    assert set(read_csv(csv)[0]['batch']) == {1, 3}
    assert saved == [False, True, True]


def test_slower_than_before_is_exit_status_1(tool, capsys, tmp_path):
    tool.call(*TINY, '--contenders', *BOTH)
    new = tmp_path / 'work_dirs/benchmark/speed.csv'
    rows, about = read_csv(new)
    capsys.readouterr()
    tool.call('--measured', new, '--compare', new)
    assert '4 the same within noise' in capsys.readouterr().out
    # An old run in which everything took a tenth.
    old = tmp_path / 'old.csv'
    write_csv(old, rows.assign(**{name: 0.1 * rows[name] for name in RATIO}), about)
    with pytest.raises(SystemExit, match='1'):
        tool.call('--measured', new, '--compare', old)
    output = capsys.readouterr().out
    assert 'slower' in output
    assert '10.00×' in output


@pytest.mark.slow
def test_page_is_generated(tool, monkeypatch, tmp_path):
    base = dict(height=64, width=64, classes=3)
    tasks = [
        Task.of(Case(**base), BOTH, 'head_loss'),
        Task.of(Case(**base, ground_truths=2), BOTH, 'settings'),
        Task.of(Case(**base, batch=1), BOTH, 'growth:batch'),
        Task.of(Case(**base, batch=4), BOTH, 'growth:batch'),
    ]
    costs = [Cost('retinanet', 'mmdet', 10**6, 10**9)]
    costs.append(costs[0]._replace(contender='consistent', parameters=1_002_000))
    profile = tool.profile_head_loss
    monkeypatch.setattr(tool, 'plan', lambda args: tasks)
    monkeypatch.setattr(tool, 'all_costs', lambda: costs)
    monkeypatch.setattr(
        tool,
        'profile_head_loss',
        lambda case, name: profile(Case(**base), name, repetitions=1),
    )
    tool.call('--write-docs', '--repetitions', 2, '--seconds', 0)
    page = (tmp_path / 'speed.md').read_text()
    headings = [line[3:] for line in page.splitlines() if line.startswith('## ')]
    assert headings == [
        'Targets', 'Head loss', 'Other settings', 'Growth', 'Model cost', 'Profile',
    ]  # fmt: skip
    assert '+0.20 %' in page
    assert '![images per batch](speed_batch.png)' in page
    assert 'aten::' in page
    assert {p.name for p in tmp_path.glob('speed*')} == {
        'speed.md', 'speed.csv', 'speed_batch.png',
    }  # fmt: skip


def test_preset_has_a_page_of_its_own(tool, monkeypatch, tmp_path):
    case = Case(height=64, width=64, classes=3)
    task = Task.of(case, ('mmdet', 'aligned'), 'train_step')
    cost = Cost('retinanet', 'mmdet', 10**6, 10**9)
    aligned = cost._replace(contender='aligned', parameters=1_003_000)
    monkeypatch.setattr(tool, 'plan', lambda args: [task])
    monkeypatch.setattr(tool, 'all_costs', lambda: [cost, aligned])
    arguments = ('--write-docs', '--repetitions', 2, '--seconds', 0)
    tool.call(*arguments, '--preset', 'additions')
    page = (tmp_path / 'speed_additions.md').read_text()
    assert '--preset additions --write-docs' in page
    assert 'aligned' in page
    assert '+0.30 %' in page
    assert {p.name for p in tmp_path.glob('speed*')} == {
        'speed_additions.md', 'speed_additions.csv',
    }  # fmt: skip


def test_history_keeps_figures_of_other_revisions(tool, monkeypatch, tmp_path, capsys):
    def measure(revision):
        figures = dict(forward=0.25, backward=0.5, total=0.3, memory=0.2)
        return dict(revision=revision, subject='A change, in words', **figures)

    monkeypatch.setattr(tool, 'measure_revision', measure)
    old = dict(measure('old'), subject='First', total=3.5)
    history.write_history(tmp_path / 'speed_history.csv', [old, measure('new')])
    tool.call('--history', 'new', '--write-docs')
    table = pd.read_csv(tmp_path / 'speed_history.csv')
    assert table['revision'].tolist() == ['old', 'new']
    assert table['total'].tolist() == [3.5, 0.3]
    output = capsys.readouterr().out
    assert '| 3.50× | 0.20×' in output


def test_measure_revision_names_an_unknown_revision():
    with pytest.raises(ValueError, match='no-such-revision'):
        history.measure_revision('no-such-revision')


NO_GPU = (['--device', 'cuda'], '--device cuda: PyTorch finds no GPU here')


def test_impossible_options_are_refused(tool, capsys):
    for arguments, message in (
        (['--write-docs', '--batch', '2'], 'everything or one --preset, nothing else'),
        (['--quick', '--batch', '2'], '--batch chooses cases, but no cases'),
        (['--image', '8y9'], 'invalid parse_image value'),
        (['--batch', '0'], 'batch must be at least 1, got 0'),
        (['--contenders', 'yolo'], "unknown contender 'yolo'"),
        *([] if torch.cuda.is_available() else [NO_GPU]),
    ):
        with pytest.raises(SystemExit, match='2'):
            tool.call(*arguments)
        assert message in capsys.readouterr().err


def test_help_shows_an_example(tool, capsys):
    with pytest.raises(SystemExit, match='0'):
        tool.call('--help')
    assert 'python -m tools.dev.benchmark --quick' in capsys.readouterr().out
