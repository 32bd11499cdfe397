"""Test-time augmentation suppresses as the model does, on any kind of test set."""

import runpy

import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict

from mmdet_consistent.utils.errors import ConfigError
from tests.support.processes import ROOT

NMS = dict(type='soft_nms', iou_threshold=0.3, min_score=0.05)
OWN = dict(nms=NMS, max_per_img=300)
LOAD = dict(type='LoadImageFromFile')
RESIZE = dict(type='Resize', scale=(64, 64), keep_ratio=True)
PACK = dict(type='PackDetInputs', meta_keys=('img_id', 'flip'))
SET = dict(type='CocoDataset', pipeline=[LOAD, RESIZE, PACK])


@pytest.fixture(scope='module')
def tool():
    register_all_modules()
    return runpy.run_path(str(ROOT / 'tools/test.py'))


def config(model=None, dataset=SET, **fields):
    model = model or dict(type='RetinaNet', test_cfg=OWN)
    return Config(dict(model=model, test_dataloader=dict(dataset=dataset), **fields))


MODELS = {
    'single-stage': dict(type='RetinaNet', test_cfg=OWN),
    'in the head': dict(type='RetinaNet', bbox_head=dict(test_cfg=OWN)),
    'two-stage': dict(
        type='FasterRCNN', test_cfg=dict(rpn=dict(max_per_img=1000), rcnn=OWN)
    ),
    'RPN alone': dict(type='RPN', test_cfg=dict(rpn=OWN)),
    'semi-supervised': dict(
        type='SoftTeacher', detector=dict(type='RetinaNet', test_cfg=OWN)
    ),
}


@pytest.mark.parametrize('kind', MODELS)
def test_tta_suppresses_as_the_model(tool, kind):
    cfg = config(MODELS[kind])
    tool['use_tta'](cfg)
    assert cfg.model.type == 'DetTTAModel'
    assert cfg.model.tta_cfg.to_dict() == OWN
    assert cfg.model.module.type == MODELS[kind]['type']


@pytest.mark.parametrize(
    'path',
    [
        'retinanet/retinanet_r18_fpn_1x_coco.py',
        'ssd/ssd300_coco.py',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    ],
)
def test_tta_suppresses_as_mmdets_own_configs(tool, path, tmp_path):
    file = tmp_path / 'config.py'
    file.write_text(f"_base_ = 'mmdet::{path}'\n")
    cfg = Config.fromfile(file)
    own = cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg)
    tool['use_tta'](cfg)
    assert cfg.model.tta_cfg.to_dict() == dict(
        nms=own.nms.to_dict(), max_per_img=own.max_per_img
    )


def test_tta_keeps_all_boxes_where_the_model_does(tool):
    cfg = config(dict(type='RetinaNet', test_cfg=dict(nms=NMS, max_per_img=-1)))
    tool['use_tta'](cfg)
    boxes = list(range(5000))
    assert boxes[: cfg.model.tta_cfg.max_per_img] == boxes


def test_tta_of_a_model_without_suppression_is_refused(tool):
    with pytest.raises(ConfigError, match=r'test_cfg has no nms.*tta_model'):
        tool['use_tta'](config(dict(type='DETR', test_cfg=dict(max_per_img=100))))


def test_tta_model_of_the_config_is_taken_and_a_difference_is_named(tool):
    given = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    cfg = config(tta_model=dict(type='DetTTAModel', tta_cfg=given))
    with pytest.warns(UserWarning, match=r'tta_cfg=.*100.*model.test_cfg has .*300'):
        tool['use_tta'](cfg)
    assert cfg.model.tta_cfg.to_dict() == given


@pytest.mark.parametrize(
    'load', [LOAD, dict(type=LoadImageFromFile), dict(type='mmcv.LoadImageFromFile')]
)
def test_tta_flips_each_of_the_joined_sets(tool, load):
    first = dict(SET, pipeline=[load, RESIZE, PACK])
    second = dict(SET, pipeline=[load, dict(RESIZE, scale=(32, 32)), PACK])
    repeated = dict(type='RepeatDataset', times=1, dataset=second)
    joined = dict(type='ConcatDataset', datasets=[first, repeated])
    cfg = config(dataset=joined, tta_model=None, tta_pipeline=None)
    tool['use_tta'](cfg)
    one, two = cfg.test_dataloader.dataset.datasets
    for dataset, scale in ((one, 64), (two.dataset, 32)):
        loaded, augmented = dataset.pipeline
        assert loaded['type'] == load['type']
        resize, flips, (pack,) = augmented['transforms']
        assert resize[0]['scale'] == (scale, scale)
        assert [flip['prob'] for flip in flips] == [1.0, 0.0]
        keys = {'img_id', 'ori_shape', 'img_shape', 'scale_factor'}
        assert set(pack['meta_keys']) == keys | {'flip', 'flip_direction'}


def test_tta_without_a_test_set_is_refused(tool):
    with pytest.raises(ConfigError, match=r'test_dataloader\.dataset is missing'):
        tool['use_tta'](Config(dict(model=ConfigDict(test_cfg=OWN))))
