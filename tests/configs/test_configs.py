from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

import mmdet_consistent  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
CONSISTENT = sorted(p for p in (ROOT / 'configs').rglob('con_*.py'))


def baseline_of(path):
    return path.with_name(path.name.removeprefix('con_'))


@pytest.mark.parametrize('path', CONSISTENT, ids=lambda p: p.stem)
def test_a_consistent_config_swaps_the_head_and_nothing_else(path):
    ours, base = Config.fromfile(path), Config.fromfile(baseline_of(path))
    assert ours.model.bbox_head.pop('type') == 'ConsistentRetinaHead'
    assert base.model.bbox_head.pop('type') == 'RetinaHead'
    assert ours.to_dict() == base.to_dict()
    assert len(path.read_text().splitlines()) <= 5


@pytest.mark.parametrize('path', CONSISTENT, ids=lambda p: p.stem)
def test_a_consistent_config_builds(path):
    model = Config.fromfile(path).model
    model.backbone.init_cfg = None
    detector = MODELS.build(model)
    base = MODELS.build(
        {**model, 'bbox_head': {**model.bbox_head, 'type': 'RetinaHead'}}
    )
    count = [sum(p.numel() for p in m.parameters()) for m in (base, detector)]
    assert count[0] < count[1] < 1.01 * count[0]


@pytest.mark.parametrize(
    ('name', 'scale'),
    [
        ('retinanet_r50_fpn', (1333, 800)),
        ('retinanet_r101_fpn', (1333, 800)),
        ('retinanet_r50_fpn_500', (833, 500)),
        ('retinanet_r101_fpn_500', (833, 500)),
    ],
)
def test_the_papers_settings(name, scale):
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    assert cfg.optim_wrapper.optimizer.type == 'SGD'
    assert cfg.optim_wrapper.optimizer.lr == 0.005
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 8
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [8, 11]
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        steps = {s.type: s for s in loader.dataset.pipeline}
        assert tuple(steps['Resize'].scale) == scale
    assert [m.type for m in cfg.val_evaluator] == ['CocoMetric', 'CocoIoUMetric']
