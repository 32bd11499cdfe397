"""The hook measures any anchor-based head and leaves the model as it was."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.structures import InstanceData

from mmdet_consistent import ConsistencyHook
from mmdet_consistent.analysis.recorder import NoAnchorsError

register_all_modules()
IMAGE = 192  # group norm needs more than one place at stride 128
ADDITIONS = [dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')]
# mmdet's config, our options, and the label stages that are measured.
DETECTORS = {
    'RetinaHead': ('retinanet/retinanet_r50_fpn_1x_coco.py', dict(), 2),
    'retina with additions': (
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        dict(type='ConsistentRetinaHead', additions=ADDITIONS),
        3,
    ),
    'GFL': ('gfl/gfl_r50_fpn_1x_coco.py', dict(type='GFLHead'), 2),
    'ATSS': ('atss/atss_r50_fpn_1x_coco.py', dict(type='ConsistentATSSHead'), 3),
}


def build(path, head=None):
    model = get_config(f'mmdet::{path}').model
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
    if head is not None:
        narrow = dict(in_channels=32, feat_channels=32, stacked_convs=1, num_classes=3)
        model.bbox_head.update(**narrow, **head)
    torch.manual_seed(0)
    return MODELS.build(model).train()


def batch():
    sample = DetDataSample(
        metainfo=dict(img_shape=(IMAGE, IMAGE), scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 56, 56]]), labels=torch.tensor([1])
    )
    image = torch.randint(256, (3, IMAGE, IMAGE), dtype=torch.uint8)
    return dict(inputs=[image] * 2, data_samples=[sample] * 2)


def run(model):
    """Run the hook once; what it logs."""
    logged = {}
    runner = SimpleNamespace(
        model=model,
        iter=0,
        visualizer=SimpleNamespace(add_scalars=lambda x, step: logged.update(x)),
    )
    hook = ConsistencyHook(interval=1, num_images=1)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, batch())
    return logged


@pytest.mark.parametrize('name', DETECTORS)
def test_every_submodule_keeps_its_training_flag(name):
    path, head, stages = DETECTORS[name]
    model = build(path, head)
    model.bbox_head.cls_convs[0].eval()
    model.backbone.layer2.eval()
    before = {name: module.training for name, module in model.named_modules()}
    assert set(before.values()) == {True, False}
    logged = run(model)
    assert {name: m.training for name, m in model.named_modules()} == before
    later = {f'consistency/num_pos_s{stage}' for stage in range(1, stages)}
    assert {'consistency/num_pos', *later} <= set(logged)


def test_training_flags_are_restored_after_an_error(monkeypatch):
    model = build(*DETECTORS['RetinaHead'][:2])
    model.bbox_head.cls_convs[0].eval()
    before = {name: module.training for name, module in model.named_modules()}

    def fail(*args, **kwargs):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(model, 'predict', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        run(model)
    assert {name: m.training for name, m in model.named_modules()} == before


def test_two_stage_detector_is_refused_before_training():
    model = build('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    with pytest.raises(NoAnchorsError, match='FasterRCNN with no bbox_head'):
        run(model)
