import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdet_consistent.engine.checkpoint import load
from tests.tools.machines import two_machines

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/quickstart/con_retinanet_bccd.py'
TINY = [
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=2',
    'test_dataloader.dataset.indices=4',
    'default_hooks.logger.interval=1',
]

pytestmark = pytest.mark.slow


def run(*command, check=True):
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHON=sys.executable)
    result = subprocess.run(
        [str(c) for c in command], cwd=ROOT, env=env, capture_output=True, text=True
    )
    output = result.stdout + result.stderr
    if check:
        assert result.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('train')
    options = [*TINY, 'train_cfg.max_epochs=2', 'train_cfg.val_interval=1']
    output = run(
        sys.executable, 'tools/train.py', CONFIG, '--work-dir', work_dir,
        '--cfg-options', *options,
    )  # fmt: skip
    assert 'loss_bbox_s1' in output
    assert 'coco/bbox_mAP' in output or 'testing results of the whole' in output
    return work_dir


def losses(work_dir):
    """Every loss that was logged, by step."""
    found = {}
    for path in sorted(work_dir.rglob('scalars.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if 'loss' in entry:
                times = ('time', 'data_time')
                values = {k: v for k, v in entry.items() if k not in times}
                # A step that was taken again must give the same again.
                assert found.setdefault(entry['step'], values) == values
    return found


def test_killed_and_resumed_equals_uninterrupted(trained, tmp_path):
    options = [*TINY, 'train_cfg.max_epochs=2', 'train_cfg.val_interval=1']
    command = [
        sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path,
        '--cfg-options', *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if 'Epoch(train) [2][2/4]' in line:
            process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / 'epoch_2.pth').exists()
    # A second checkpoint, torn, as an unsafe writer leaves it.
    content = (tmp_path / 'epoch_1.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(content[: len(content) // 2])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    output = run(
        *command[: -len(options) - 1], '--resume', *command[-len(options) - 1 :]
    )
    assert 'epoch_2.pth' in output.split('not resuming from')[1].splitlines()[0]
    assert 'going back to the last good one' in output
    assert 'Epoch(train) [2][1/4]' in output
    expected, actual = losses(trained), losses(tmp_path)
    assert len(expected) == 8
    assert actual == expected
    weights = [load(d / 'epoch_2.pth')['state_dict'] for d in (trained, tmp_path)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_checkpoint_of_another_model_is_refused_with_a_table(trained, tmp_path):
    output = run(
        sys.executable, 'tools/test.py', CONFIG, trained / 'epoch_1.pth',
        '--work-dir', tmp_path, '--cfg-options', *TINY,
        'model.bbox_head.feat_channels=32', check=False,
    )  # fmt: skip
    assert 'Traceback' not in output
    error = output.split('CheckpointError: ')[1]
    assert 'does not fit this model and cannot be tested' in error
    assert re.search(r'bbox_head.retina_cls.weight +27×64×3×3 +27×32×3×3', error)


@pytest.mark.parametrize('tta', [False, True])
def test_evaluation_writes_detections(trained, tmp_path, tta):
    out = tmp_path / 'dets.pkl'
    run(
        sys.executable, 'tools/test.py', CONFIG, trained / 'epoch_1.pth',
        '--work-dir', tmp_path, '--out', out, '--show-dir', 'pictures',
        *(['--tta'] if tta else []),
        '--cfg-options', *TINY, 'model.test_cfg.score_thr=0.001',
    )  # fmt: skip
    detections = pickle.loads(out.read_bytes())
    assert len(detections) == 4
    assert all(d['pred_instances']['bboxes'].shape[1] == 4 for d in detections)
    assert sum(len(d['pred_instances']['scores']) for d in detections) > 0
    assert list(tmp_path.rglob('pictures/**/*.jpg'))


def test_a_baseline_fine_tunes_into_a_consistent_detector(tmp_path):
    options = [*TINY, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    run(
        sys.executable, 'tools/train.py', 'configs/quickstart/retinanet_bccd.py',
        '--work-dir', tmp_path / 'base', '--cfg-options', *options,
    )  # fmt: skip
    output = run(
        sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'con',
        '--cfg-options', *options, f'load_from={tmp_path}/base/epoch_1.pth',
    )  # fmt: skip
    missing = output.split('missing keys in source state_dict:')[1].splitlines()[0]
    assert {k.strip() for k in missing.split(',')} == {
        'bbox_head.retina_reg.later_stages.0.weight',
        'bbox_head.retina_reg.later_stages.0.bias',
    }
    assert 'unexpected key' not in output


def test_two_machines_train_and_two_processes_test(tmp_path):
    options = [*TINY, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    command = [
        'bash', 'tools/dist_train.sh', CONFIG, '1', '--work-dir', str(tmp_path),
        '--cfg-options', *options,
    ]  # fmt: skip
    with two_machines() as (starts, environment):
        common = dict(
            os.environ, OMP_NUM_THREADS='1', PYTHON=sys.executable, NNODES='2',
            **environment,
        )  # fmt: skip
        machines = [
            subprocess.Popen(
                [*start, *command], cwd=ROOT, env=dict(common, NODE_RANK=str(rank)),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank, start in enumerate(starts)
        ]  # fmt: skip
        outputs = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    # Half of the eight images each, and only the first of the ranks logs.
    assert 'Epoch(train) [1][2/2]' in outputs[0]
    assert 'Epoch(train)' not in outputs[1]
    run(
        'bash', 'tools/dist_test.sh', CONFIG, tmp_path / 'epoch_1.pth', 2,
        '--work-dir', tmp_path, '--cfg-options', *TINY,
    )  # fmt: skip


def test_missing_files_are_named():
    output = run(sys.executable, 'tools/train.py', 'nowhere.py', check=False)
    assert 'config not found: nowhere.py' in output
    output = run(sys.executable, 'tools/test.py', CONFIG, 'nowhere.pth', check=False)
    assert 'checkpoint not found: nowhere.pth' in output


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without a GPU')
def test_mixed_precision_without_a_gpu_is_refused():
    output = run(sys.executable, 'tools/train.py', CONFIG, '--amp', check=False)
    assert 'leave --amp out' in output


def test_quickstart_smoke(tmp_path):
    output = run(
        sys.executable, 'tools/quickstart.py', '--smoke', '--work-dir', tmp_path
    )
    rows = [line.split('|') for line in output.splitlines() if line.startswith('| ')]
    positives = {row[1].strip(): row[6].strip().split(', ') for row in rows}
    # Same images, anchors and assigner: the first stage sees the same positives.
    assert positives['RetinaNet'] == positives['ConRetinaNet'][:1]
    assert len(positives['ConRetinaNet']) == 2
    assert (tmp_path / 'detections.png').stat().st_size > 10_000
    assert output.rstrip().endswith('con_retinanet_r101_fpn.py 4')
    again = run(
        sys.executable, 'tools/quickstart.py', '--smoke', '--work-dir', tmp_path
    )
    assert 'done before' in again
