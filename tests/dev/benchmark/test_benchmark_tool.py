import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tools.dev.benchmark.cases import Case, Task
from tools.dev.benchmark.cost import Cost
from tools.dev.benchmark.results import read_csv, write_csv

ROOT = Path(__file__).resolve().parents[3]
TINY = ['--image', '64', '--classes', '3', '--repetitions', '2', '--seconds', '0']


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The tool as a module, working in a temporary folder."""
    module = importlib.import_module('tools.dev.benchmark.__main__')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, 'DOCS', tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, arguments)])
        module.main()

    module.call = call
    return module


def test_own_cases(tool, capsys, tmp_path):
    tool.call(*TINY, '--batch', 1, 2, '--contenders', 'mmdet', 'consistent')
    output = capsys.readouterr().out
    assert 'RetinaNet, 1 × 64x64 pixels' in output
    assert 'RetinaNet, 2 × 64x64 pixels' in output
    rows, about = read_csv(tmp_path / 'work_dirs/benchmark/speed.csv')
    assert {(r.case.batch, r.contender) for r in rows} == {
        (1, 'mmdet'), (1, 'consistent'), (2, 'mmdet'), (2, 'consistent'),
    }  # fmt: skip
    assert 'torch' in about['versions']


def test_slower_than_before_is_exit_status_1(tool, capsys, tmp_path):
    arguments = [*TINY, '--contenders', 'mmdet', 'consistent']
    tool.call(*arguments)
    new = tmp_path / 'work_dirs/benchmark/speed.csv'
    rows, about = read_csv(new)
    capsys.readouterr()
    tool.call('--measured', new, '--compare', new)
    assert '4 the same within noise' in capsys.readouterr().out
    # An old run in which everything took a tenth.
    old = tmp_path / 'old.csv'
    write_csv(old, [scaled(row, 0.1) for row in rows], about)
    with pytest.raises(SystemExit, match='1'):
        tool.call('--measured', new, '--compare', old)
    output = capsys.readouterr().out
    assert 'slower' in output
    assert '10.00×' in output


def scaled(row, factor):
    return replace(row, ratio=type(row.ratio)(*(factor * x for x in row.ratio)))


@pytest.mark.slow
def test_the_page_is_generated(tool, monkeypatch, tmp_path):
    base = dict(height=64, width=64, classes=3)
    names = ('mmdet', 'consistent')
    tasks = [
        Task(Case(**base), names, ('head_loss', 'settings')),
        Task(Case(**base, batch=1), names, ('growth:batch',)),
        Task(Case(**base, batch=4), names, ('growth:batch',)),
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
    assert '![images in a batch](speed_batch.png)' in page
    assert 'aten::' in page
    assert {p.name for p in tmp_path.glob('speed*')} == {
        'speed.md', 'speed.csv', 'speed_batch.png',
    }  # fmt: skip


def test_a_preset_has_a_page_of_its_own(tool, monkeypatch, tmp_path):
    names = ('mmdet', 'aligned')
    task = Task(Case(height=64, width=64, classes=3), names, ('train_step',))
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


NO_GPU = (['--device', 'cuda'], '--device cuda: PyTorch finds no GPU here')


def test_refused_options(tool, capsys):
    for arguments, message in (
        (['--write-docs', '--batch', '2'], 'or one --preset: give no more'),
        (['--quick', '--batch', '2'], '--batch: there are no cases to choose'),
        (['--image', '8y9'], 'invalid parse_image value'),
        *([] if torch.cuda.is_available() else [NO_GPU]),
    ):
        with pytest.raises(SystemExit, match='2'):
            tool.call(*arguments)
        assert message in capsys.readouterr().err


def test_help_shows_an_example(tool, capsys):
    with pytest.raises(SystemExit, match='0'):
        tool.call('--help')
    assert 'python -m tools.dev.benchmark --quick' in capsys.readouterr().out
