"""slurm_train.sh and slurm_test.sh, under a stub of srun that starts the tasks here."""

import json
import os
import sys

import pytest

from mmdet_consistent.engine.launch import load_config
from mmdet_consistent.utils.errors import ConfigError
from tests.support.processes import ROOT, run

CONFIG = 'configs/quickstart/con_retinanet_bccd.py'
TINY = [
    'model.backbone.base_channels=8',
    'model.neck.in_channels=[8,16,32,64]',
    'model.bbox_head.stacked_convs=1',
    'train_dataloader.batch_size=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.dataset.indices=4',
    'val_dataloader.dataset.indices=1',
    'default_hooks.logger.interval=1',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=9',
]
# Records its arguments; starts the command as SRUN_TASKS tasks.
SRUN = """#!{python}
import json, os, subprocess, sys
first = next(i for i, a in enumerate(sys.argv) if i and a[:2] != '--')
options, command = sys.argv[1:first], sys.argv[first:]
record = dict(options=options, command=command, port=os.environ['MASTER_PORT'])
json.dump(record, open({record!r}, 'w'))
count = int(os.environ.get('SRUN_TASKS', 0))
tasks = [
    subprocess.Popen(command, env=dict(
        os.environ, SLURM_PROCID=str(i), SLURM_LOCALID=str(i),
        SLURM_NTASKS=str(count), SLURM_NODELIST='node[1-2]',
    ))
    for i in range(count)
]
sys.exit(max([task.wait() for task in tasks], default=0))
"""
SCONTROL = """#!/bin/sh
test "$*" = "show hostnames node[1-2]" && printf "localhost\\\\nnode2\\\\n"
"""


@pytest.fixture
def slurm(tmp_path):
    """Run a script of ours where srun is the stub; return its output and record."""
    programs = tmp_path / 'programs'
    programs.mkdir()
    record = tmp_path / 'record.json'
    for name, text in (
        ('srun', SRUN.format(python=sys.executable, record=str(record))),
        ('scontrol', SCONTROL),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ['PATH']])

    def launch(*command, **variables):
        output = run(*command, env=dict(variables, PATH=path))
        return output, json.loads(record.read_text())

    return launch


@pytest.mark.slow
@pytest.mark.works_with(
    'Slurm',
    'train and test as MMDetection does (with a stub of srun)',
    'clusters.md#slurm',
)
def test_slurm_train_trains_in_two_tasks(slurm, tmp_path):
    output, record = slurm(
        'bash', 'tools/slurm_train.sh', 'gpu', 'job', CONFIG, tmp_path / 'work',
        '--cfg-options', *TINY, GPUS='2', SRUN_TASKS='2',
    )  # fmt: skip
    assert {'--partition=gpu', '--job-name=job', '--ntasks=2'} <= set(record['options'])
    # Half of the four images each, and only the first of the ranks logs.
    assert output.count('Epoch(train) [1][2/2]') == 1
    assert (tmp_path / 'work/epoch_1.pth').is_file()


def test_slurm_train_passes_mmdets_variables_and_arguments(slurm):
    _, record = slurm(
        'bash', 'tools/slurm_train.sh', 'gpu', 'job', 'a.py', 'work', '--amp',
        GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='3', MASTER_PORT='1234',
        SRUN_ARGS='--time=60 --requeue', PYTHON='python3.9',
    )  # fmt: skip
    assert record['options'] == [
        '--partition=gpu', '--job-name=job', '--gres=gpu:4', '--ntasks=16',
        '--ntasks-per-node=4', '--cpus-per-task=3', '--kill-on-bad-exit=1',
        '--time=60', '--requeue',
    ]  # fmt: skip
    assert record['command'] == [
        'python3.9', '-u', str(ROOT / 'tools/train.py'), 'a.py', '--launcher', 'slurm',
        '--work-dir', 'work', '--amp',
    ]  # fmt: skip
    assert record['port'] == '1234'


def test_slurm_train_needs_no_work_dir_and_asks_for_no_more_gpus_than_tasks(slurm):
    _, record = slurm(
        'bash', 'tools/slurm_train.sh', 'gpu', 'job', 'a.py', '--resume', GPUS='2'
    )
    assert '--gres=gpu:2' in record['options']
    assert record['command'][3:] == ['a.py', '--launcher', 'slurm', '--resume']
    assert 20000 <= int(record['port']) < 30000


def test_slurm_test_passes_checkpoint_and_arguments(slurm):
    _, record = slurm(
        'bash', 'tools/slurm_test.sh', 'gpu', 'job', 'a.py', 'a.pth', '--tta'
    )
    assert {'--ntasks=8', '--gres=gpu:8'} <= set(record['options'])
    assert record['command'][2:] == [
        str(ROOT / 'tools/test.py'), 'a.py', 'a.pth', '--launcher', 'slurm', '--tta',
    ]  # fmt: skip


@pytest.mark.parametrize('tool', ['slurm_train.sh', 'slurm_test.sh'])
def test_missing_arguments_print_the_usage(tool):
    output = run('bash', f'tools/{tool}', 'gpu', 'job', status=2)
    assert output.startswith(f'usage: tools/{tool} PARTITION JOB_NAME CONFIG')


@pytest.mark.parametrize(
    ('launcher', 'name'), [('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')]
)
def test_launcher_whose_variables_are_missing_is_named(launcher, name, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('MASTER_PORT', '1')  # restores it afterwards
    with pytest.raises(ConfigError, match=f'--launcher {launcher}: .* {name} is not'):
        load_config(str(ROOT / CONFIG), launcher=launcher)
