"""Our tools from end to end: train, kill, resume, test, fine-tune, distribute."""

import json
import pickle
import re
import signal
import subprocess
import sys

import pytest
import torch

from mmdet_consistent.engine.checkpoint import load
from tests.support.processes import ROOT, environment, free_port, run, run_tool
from tests.support.toy import same_weights

CONFIG = 'configs/quickstart/con_retinanet_bccd.py'
TINY = [
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=2',
    'test_dataloader.dataset.indices=4',
    'default_hooks.logger.interval=1',
]
TWO_EPOCHS = [*TINY, 'train_cfg.max_epochs=2', 'train_cfg.val_interval=1']
ONE_EPOCH = [*TINY, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def train(config, work_dir, options, *arguments, **kwargs):
    """Train in a process of its own."""
    return run(
        sys.executable, 'tools/train.py', config, '--work-dir', work_dir, *arguments,
        '--cfg-options', *options, **kwargs,
    )  # fmt: skip


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('train')
    output = train(CONFIG, work_dir, TWO_EPOCHS)
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


@slow
def test_killed_and_resumed_training_equals_an_uninterrupted_one(trained, tmp_path):
    config = tmp_path / 'killed.py'
    config.write_text(
        f'_base_ = {str(ROOT / CONFIG)!r}\n'
        "custom_imports = dict(imports=['mmdet_consistent', 'tests.support.toy'])\n"
        'custom_hooks = [\n'
        "    dict(type='KillHook', point='before_train_iter', count=7, rank=0)\n"
        ']\n'
    )
    work_dir = tmp_path / 'run'
    # Killed by itself, at an exact place: this process could come too late.
    output = train(config, work_dir, TWO_EPOCHS, status=-signal.SIGKILL)
    assert 'Epoch(train) [2][2/4]' in output
    assert not (work_dir / 'epoch_2.pth').exists()
    # A second checkpoint, torn, as an unsafe writer leaves it.
    content = (work_dir / 'epoch_1.pth').read_bytes()
    (work_dir / 'epoch_2.pth').write_bytes(content[: len(content) // 2])
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'))
    output = train(CONFIG, work_dir, TWO_EPOCHS, '--resume')
    assert 'epoch_2.pth' in output.split('not resuming from')[1].splitlines()[0]
    assert 'going back to the last good one' in output
    assert 'Epoch(train) [2][1/4]' in output
    expected, actual = losses(trained), losses(work_dir)
    assert len(expected) == 8
    assert actual == expected
    first, second = (
        load(folder / 'epoch_2.pth')['state_dict'] for folder in (trained, work_dir)
    )
    assert same_weights(first, second)


@slow
def test_checkpoint_of_another_model_is_refused_with_a_table(trained, tmp_path):
    with pytest.raises(SystemExit) as error:
        run_tool(
            'tools/test.py', CONFIG, trained / 'epoch_1.pth', '--work-dir', tmp_path,
            '--cfg-options', *TINY, 'model.bbox_head.feat_channels=32',
        )  # fmt: skip
    message = str(error.value)
    assert message.startswith('CheckpointError: ')
    assert 'does not fit this model and cannot be tested' in message
    assert re.search(r'bbox_head.retina_cls.weight +27×64×3×3 +27×32×3×3', message)


@slow
def test_evaluation_with_tta_writes_and_draws_detections(trained, tmp_path):
    out = tmp_path / 'dets.pkl'
    run_tool(
        'tools/test.py', CONFIG, trained / 'epoch_1.pth', '--work-dir', tmp_path,
        '--out', out, '--show-dir', 'pictures', '--tta',
        '--cfg-options', *TINY, 'model.test_cfg.score_thr=0.001',
    )  # fmt: skip
    detections = pickle.loads(out.read_bytes())
    assert len(detections) == 4
    assert all(d['pred_instances']['bboxes'].shape[1] == 4 for d in detections)
    assert sum(len(d['pred_instances']['scores']) for d in detections) > 0
    assert list(tmp_path.rglob('pictures/**/*.jpg'))


@slow
@pytest.mark.works_with(
    'RetinaNet checkpoints',
    'continue from a baseline',
    'fine_tuning.md',
)
def test_baseline_fine_tunes_into_a_consistent_detector(tmp_path, capsys):
    base = 'configs/quickstart/retinanet_bccd.py'
    steps = [*ONE_EPOCH, 'train_dataloader.dataset.indices=2']
    for config, folder, more in (
        (base, 'base', []),
        (CONFIG, 'con', [f'load_from={tmp_path}/base/epoch_1.pth']),
    ):
        run_tool(
            'tools/train.py', config, '--work-dir', tmp_path / folder,
            '--cfg-options', *steps, *more,
        )  # fmt: skip
    text = capsys.readouterr().out
    missing = text.split('missing keys in source state_dict:')[1].splitlines()[0]
    assert {k.strip() for k in missing.split(',')} == {
        'bbox_head.retina_reg.later_stages.0.weight',
        'bbox_head.retina_reg.later_stages.0.bias',
    }
    assert 'unexpected key' not in text


@slow
@pytest.mark.works_with(
    '`torchrun`',
    'train on several machines, test in several processes',
    'clusters.md#several-machines',
)
def test_two_nodes_train_and_two_processes_test(tmp_path):
    """Two agents of torchrun on the loopback stand for two machines."""
    command = [
        'bash', 'tools/dist_train.sh', CONFIG, '1', '--work-dir', str(tmp_path),
        '--cfg-options', *ONE_EPOCH,
    ]  # fmt: skip
    common = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=str(free_port()))
    nodes = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment(**common, NODE_RANK=str(rank)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [node.communicate()[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    # Half of the eight images each, and only the first of the ranks logs.
    assert 'Epoch(train) [1][2/2]' in outputs[0]
    assert 'Epoch(train)' not in outputs[1]
    run(
        'bash', 'tools/dist_test.sh', CONFIG, tmp_path / 'epoch_1.pth', 2,
        '--work-dir', tmp_path, '--cfg-options', *TINY,
    )  # fmt: skip


def test_missing_files_are_named(capsys):
    with pytest.raises(SystemExit, match=r'config not found: nowhere\.py'):
        run_tool('tools/train.py', 'nowhere.py')
    with pytest.raises(SystemExit, match='2'):
        run_tool('tools/test.py', CONFIG, 'nowhere.pth')
    assert 'checkpoint not found: nowhere.pth' in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without a GPU')
def test_mixed_precision_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match='leave --amp out'):
        run_tool('tools/train.py', CONFIG, '--amp')


@slow
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
    assert output.rstrip().endswith('recommended/con_retinanet_r50_fpn.py 4')
    assert re.search(r'Seed 0: [+-]\d+\.\d AP', output)
    again = run(
        sys.executable, 'tools/quickstart.py', '--smoke', '--work-dir', tmp_path
    )
    assert 'done before' in again


@slow
@pytest.mark.parametrize('tool', ['train', 'analyze'])
def test_modules_beside_the_config_are_found(tool, tmp_path):
    (tmp_path / 'own_module.py').write_text("raise SystemExit('it is imported')\n")
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['own_module'])\n")
    (tmp_path / 'weights.pth').touch()
    arguments = dict(train=[], analyze=['weights.pth', '--out', 'page'])
    output = run(
        sys.executable, '-m', 'mmdet_consistent', tool, 'config.py',
        *arguments[tool], status=1, cwd=tmp_path,
    )  # fmt: skip
    assert 'it is imported' in output
