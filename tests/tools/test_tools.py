import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    options = [*TINY, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    output = run(
        sys.executable, 'tools/train.py', CONFIG, '--work-dir', work_dir,
        '--cfg-options', *options,
    )  # fmt: skip
    assert 'loss_bbox_s1' in output
    assert 'coco/bbox_mAP' in output or 'testing results of the whole' in output
    return work_dir


def test_training_resumes(trained):
    options = [*TINY, 'train_cfg.max_epochs=2', 'train_cfg.val_interval=9']
    output = run(
        sys.executable, 'tools/train.py', CONFIG, '--work-dir', trained, '--resume',
        '--cfg-options', *options,
    )  # fmt: skip
    assert 'resumed epoch: 1' in output
    assert 'Epoch(train) [2][4/4]' in output
    assert 'Epoch(train) [1]' not in output.split('resumed epoch')[1]


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


def test_two_processes_train_and_test(tmp_path):
    options = [*TINY, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    output = run(
        'bash', 'tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path,
        '--cfg-options', *options,
    )  # fmt: skip
    assert 'Epoch(train) [1][2/2]' in output
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
