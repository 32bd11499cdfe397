"""Every shipped config builds, takes a training step and predicts."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData

import mmdet_consistent.engine.safe  # noqa: F401  lets mmdet's SSD predict

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
CONSISTENT = [
    *sorted(CONFIGS.glob('con_*.py')),
    CONFIGS / 'quickstart/con_retinanet_bccd.py',
]
RECOMMENDED = sorted(CONFIGS.glob('recommended/*.py'))
ADDITIONS = [dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')]
SHIPPED = sorted(CONFIGS.glob('*.py')) + sorted(CONFIGS.glob('ablations/*.py'))
HEADS = {
    'ConsistentRetinaHead': 'RetinaHead',
    'ConsistentSSDHead': 'SSDHead',
}
SETTINGS = {
    row['config']: row['settings']
    for row in json.loads((CONFIGS / 'paper_tables.json').read_text())
}


def baseline_of(path):
    return path.with_name(path.name.removeprefix('con_'))


@pytest.mark.parametrize('path', CONSISTENT, ids=lambda p: p.stem)
def test_consistent_config_swaps_the_head_and_nothing_else(path):
    ours, base = Config.fromfile(path), Config.fromfile(baseline_of(path))
    swapped = HEADS[ours.model.bbox_head.pop('type')]
    assert swapped == base.model.bbox_head.pop('type')
    assert ours.to_dict() == base.to_dict()


@pytest.mark.parametrize(
    ('path', 'plain'),
    [
        ('recommended/con_retinanet_r50_fpn.py', 'con_retinanet_r50_fpn.py'),
        ('recommended/con_ssd512_vgg16.py', 'con_ssd512_vgg16.py'),
        ('quickstart/con_retinanet_on_bccd.py', 'quickstart/retinanet_on_bccd.py'),
    ],
)
def test_recommended_config_adds_to_the_head_and_nothing_else(path, plain):
    ours, base = (Config.fromfile(CONFIGS / name) for name in (path, plain))
    head = ours.model.bbox_head
    assert head.pop('additions') == ADDITIONS
    if head.type in HEADS and base.model.bbox_head.type == HEADS[head.type]:
        head.type = HEADS[head.type]
    assert ours.to_dict() == base.to_dict()


@pytest.mark.parametrize('path', RECOMMENDED, ids=lambda p: p.stem)
def test_recommended_config_builds_with_the_additions(path):
    head = MODELS.build(Config.fromfile(path).model).bbox_head
    assert [type(a).__name__ for a in head.additions] == [a['type'] for a in ADDITIONS]


@pytest.mark.parametrize('path', CONSISTENT, ids=lambda p: p.stem)
def test_consistent_detector_adds_one_box_output(path):
    detectors = []
    for config in (baseline_of(path), path):
        model = Config.fromfile(config).model
        model.backbone.init_cfg = None
        with torch.device('meta'):
            detectors.append(MODELS.build(model))
    base, ours = (sum(p.numel() for p in d.parameters()) for d in detectors)
    head = detectors[0].bbox_head
    is_ssd = 'ssd' in path.stem
    box_output = head.reg_convs if is_ssd else head.retina_reg
    assert ours - base == sum(p.numel() for p in box_output.parameters())
    # SSD has no towers, so its outputs look at hundreds of channels themselves.
    assert ours < (1.021 if is_ssd else 1.01) * base


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('ablations/*.py')), ids=lambda p: p.stem
)
def test_ablation_changes_the_head_and_nothing_else(path):
    ours = Config.fromfile(path)
    base = Config.fromfile(CONFIGS / 'con_retinanet_r50_fpn_500.py')
    assert ours.model.pop('bbox_head') != base.model.pop('bbox_head')
    assert ours.to_dict() == base.to_dict()


def batch(size):
    """Two images as a data loader gives them: one object, and two that overlap."""
    generator = torch.Generator().manual_seed(0)
    shapes = [[[0.1, 0.1, 0.8, 0.9]], [[0.0, 0.3, 0.6, 0.9], [0.2, 0.2, 0.9, 0.8]]]
    inputs, samples = [], []
    for boxes in shapes:
        image = torch.randint(0, 256, (3, size, size), generator=generator)
        inputs.append(image.to(torch.uint8))
        sample = DetDataSample(
            gt_instances=InstanceData(
                bboxes=torch.tensor(boxes) * size,
                labels=torch.arange(len(boxes)),
            ),
            metainfo=dict(
                img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0)
            ),
        )
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def expected_losses(settings):
    names = {'loss_cls', 'loss_bbox'}
    names |= {f'loss_cls_s{k}' for k in range(1, settings['label_stages'])}
    names |= {f'loss_bbox_s{k}' for k in range(1, settings['reg_stages'])}
    return names


def learnt(head, before):
    """Return whether each kind of parameter moved; SSD mines no anchor on some levels."""
    moved = {}
    for name, value in head.named_parameters():
        kind = re.sub(r'\.\d+', '', name)
        moved[kind] = moved.get(kind, False) or bool((value != before[name]).any())
    return set(moved.values())


def check_head(head, settings):
    if settings['variant'] == 'baseline':
        assert type(head).__name__ in HEADS.values()
        return
    assert type(head).__name__ in HEADS
    assert head.variant.type == settings['variant']
    assert (head.label_stages, head.reg_stages) == (
        settings['label_stages'],
        settings['reg_stages'],
    )
    assigners = [stage.assigner for stage in head.stages[1:]]
    thresholds = [[a.pos_iou_thr, a.neg_iou_thr] for a in assigners]
    assert thresholds == settings['thresholds']
    assert list(head.stage_loss_weights) == [1.0] * settings['label_stages']


@pytest.mark.slow
@pytest.mark.parametrize('path', SHIPPED, ids=lambda p: p.stem)
def test_config_builds_trains_and_predicts(path):
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = None
    # Untrained scores are below every threshold.
    cfg.model.test_cfg.update(score_thr=0.0, nms_pre=50)
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    # SSD512's last level needs more than 256 pixels.
    size = 264 if 'ssd' in path.stem else 96
    data = batch(size)

    settings = SETTINGS.get(str(path.relative_to(ROOT)))
    if settings:
        check_head(detector.bbox_head, settings)
    optimizer = dict(cfg.optim_wrapper.optimizer)
    assert optimizer.pop('type') == 'SGD'
    optimizer = OptimWrapper(torch.optim.SGD(detector.parameters(), **optimizer))
    detector.train()
    before = copy.deepcopy(detector.bbox_head.state_dict())
    logs = detector.train_step(data, optimizer)
    assert all(torch.isfinite(value).all() for value in logs.values())
    names = {name for name in logs if 'loss_' in name}
    if settings:
        assert names == expected_losses(settings)
    assert all(logs[name] > 0 for name in ('loss_cls', 'loss_bbox'))
    assert learnt(detector.bbox_head, before) == {True}

    detector.eval()
    with torch.no_grad():
        results = detector.test_step(data)
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= cfg.model.test_cfg.max_per_img
        assert torch.isfinite(found.scores).all()
        assert found.bboxes.min() >= 0
        assert found.bboxes.max() <= size
        assert found.labels.min() >= 0
        assert found.labels.max() < 80
