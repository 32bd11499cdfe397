import json

import pytest
import torch
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_consistent.analysis.consistency import (
    agreement,
    anchor_labels,
    assigner_of,
)
from mmdet_consistent.engine.hooks import ConsistencyHook
from mmdet_consistent.heads.stage import Stage
from mmdet_consistent.task_modules import SecondPassAssigner
from tests.support.tiny_detector import ROOT, tiny_config


def test_agreement_of_anchor_labels_leaves_out_ignored_anchors():
    truth = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10]]),
        labels=torch.tensor([2, 4]),
    )
    boxes = torch.tensor(
        [[0.0, 0, 10, 9], [0, 0, 10, 5.5], [50, 0, 60, 10], [90, 90, 99, 99]]
    )
    labels = anchor_labels(SecondPassAssigner(0.6, 0.5), boxes, truth)
    assert labels.tolist() == [2, -2, 4, -1]
    after = torch.tensor([2, 4, 2, 4])
    # Agrees; ignored, so left out; another class; positive only afterwards.
    assert agreement(labels, after).tolist() == [True, False, False]
    nobody = torch.tensor([-1, -2])
    assert agreement(nobody, nobody).tolist() == []


def test_assigner_of_prefers_the_heads_own_assigners():
    class Head:
        stages = [Stage(0), Stage(1, assigner=SecondPassAssigner(0.65, 0.55))]

    thresholds = [assigner_of(Head(), stage).pos_iou_thr for stage in range(3)]
    assert thresholds == [0.5, 0.65, 0.7]


@pytest.mark.parametrize('name', ['interval', 'num_images'])
def test_consistency_hook_refuses_an_option_below_one(name):
    with pytest.raises(ValueError, match=f'{name} must be at least 1, got 0'):
        ConsistencyHook(**{name: 0})


def train(work_dir, config, hooks):
    cfg = tiny_config(config)
    cfg.work_dir = str(work_dir)
    cfg.log_level = 'ERROR'
    cfg.custom_hooks = hooks
    cfg.default_hooks.checkpoint = None
    cfg.train_dataloader.batch_size = 2
    cfg.train_dataloader.dataset.indices = 6
    cfg.train_dataloader.dataset.data_root = str(ROOT / cfg.data_root)
    cfg.train_cfg.max_epochs = 1
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    # One visualizer of a name lives in a process.
    cfg.experiment_name = cfg.visualizer.name = work_dir.name
    runner = Runner.from_cfg(cfg)
    runner.train()
    logged = []
    for path in work_dir.rglob('scalars.json'):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        logged += [line for line in lines if 'consistency/num_pos' in line]
    return runner.model.state_dict(), logged


@pytest.mark.parametrize(
    ('config', 'stages'), [('retinanet_bccd', 2), ('con_retinanet_bccd', 3)]
)
def test_consistency_hook_logs_and_leaves_training_unchanged(tmp_path, config, stages):
    hook = dict(type='ConsistencyHook', interval=2, num_images=1)
    with_hook, logged = train(tmp_path / f'{config}-with', config, [hook])
    if config == 'con_retinanet_bccd':  # once is enough
        without, nothing = train(tmp_path / f'{config}-without', config, [])
        assert nothing == []
        for name, weight in without.items():
            torch.testing.assert_close(with_hook[name], weight, rtol=0, atol=0)
    # Three iterations, a look at every second.
    assert [line['step'] for line in logged] == [2]
    names = {name.split('/')[1] for name in logged[0] if '/' in name}
    later = {f'num_pos_s{stage}' for stage in range(1, stages)}
    assert {'num_pos', 'label_agreement'} | later <= names
    assert logged[0]['consistency/num_pos'] > 0
    assert 0 <= logged[0]['consistency/label_agreement'] <= 1
