"""An exported file returns what PyTorch returns, for any batch and size."""

import json
import re

import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

import mmdet_consistent
from mmdet_consistent.utils.errors import ConfigError
from tests.support.exporting import assert_same_detections, by_mmdet, make_images

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnx')

from mmdet_consistent.export import DeployableDetector, export_onnx  # noqa: E402
from mmdet_consistent.export.deployable import _suppression_obstacles  # noqa: E402

RETINA = dict(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1)
KINDS = {
    "mmdet's": dict(type='RetinaHead'),
    'consistent': dict(type='ConsistentRetinaHead'),
    'three stages': dict(
        type='ConsistentRetinaHead',
        label_stages=3,
        reg_stages=3,
        stage_bbox_coders=dict(
            type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]
        ),
    ),
    'cascade': dict(type='ConsistentRetinaHead', variant='cascade'),
    'gated, last': dict(
        type='ConsistentRetinaHead',
        variant=dict(type='gated_cascade', scores='last'),
    ),
    'ssd': dict(type='ConsistentSSDHead'),
    'ssd cascade': dict(type='ConsistentSSDHead', variant='cascade'),
    'aligned, with confidence': dict(
        type='ConsistentRetinaHead',
        reg_stages=3,
        additions=[dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')],
    ),
}
# One with VGG-16, all of it; for the other a thin ResNet.
THIN_SSD = (16, 32, 64, 32, 16, 16, 16)
# (batch, height, width): square and not, no multiple of anything, one image or more.
# The last ones have the features of the exporter's example, turned: a size that was
# taken for a constant would fit there, and be wrong.
RETINA_SHAPES = ((1, 64, 96), (3, 93, 141), (1, 352, 320))
SSD_SHAPES = ((2, 300, 300), (1, 352, 320))


def model_config(kind, **test_cfg):
    head = KINDS[kind]
    if kind == 'ssd cascade':
        model = Config.fromfile(mmdet_consistent.config_path('ssd512_r50.py')).model
        model.backbone.update(depth=18, base_channels=8)
        model.neck.update(in_channels=THIN_SSD[:3], out_channels=THIN_SSD)
        model.bbox_head.update(head, num_classes=3, in_channels=THIN_SSD)
    elif kind == 'ssd':
        model = Config.fromfile(mmdet_consistent.config_path('ssd300_vgg16.py')).model
        model.bbox_head.update(head, num_classes=3)
    else:
        path = mmdet_consistent.config_path('retinanet_r50_fpn.py')
        model = Config.fromfile(path).model
        model.backbone.update(depth=18, base_channels=8)
        model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
        model.bbox_head.update({**RETINA, **head})
    model.backbone.init_cfg = None
    model.test_cfg.update(nms_pre=150, score_thr=0.3, max_per_img=20, **test_cfg)
    return model


def build(kind, **test_cfg):
    """A detector whose outputs are neither equal nor tiny."""
    register_all_modules()
    torch.manual_seed(0)
    detector = MODELS.build(model_config(kind, **test_cfg)).eval()
    detector.init_weights()  # SSD's L2Norm is not set otherwise
    kind = type(detector.bbox_head).__name__
    for name, parameter in detector.bbox_head.named_parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            gain = 0.3 if 'reg' in name or 'SSD' in kind else 1.5
            parameter.data.normal_(std=gain / fan_in**0.5)
        else:
            parameter.data.normal_(std=0.3)
    with torch.no_grad():  # features of unit size: deltas stay within the coder's clamp
        probe = torch.zeros(1, 3, 300, 300).uniform_(-2, 2)
        if 'SSD' in kind:
            probe = probe * 60
        for level, features in enumerate(detector.extract_feat(probe)):
            scale = features.abs().mean().clamp(min=1e-6)
            detector.register_buffer(f'scale{level}', scale)
    plain = detector.extract_feat
    detector.extract_feat = lambda x: tuple(
        f / getattr(detector, f'scale{i}') for i, f in enumerate(plain(x))
    )
    return detector


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    done = {}

    def exported(kind, nms):
        if (kind, nms) not in done:
            detector = build(kind)
            path = tmp_path_factory.mktemp('onnx') / 'model.onnx'
            export_onnx(detector, path, nms=nms, classes=('a', 'b', 'c'))
            done[kind, nms] = detector, onnxruntime.InferenceSession(str(path))
        return done[kind, nms]

    return exported


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_export_with_suppression_equals_mmdet(exported, kind):
    detector, session = exported(kind, nms=True)
    for shape in SSD_SHAPES if 'ssd' in kind else RETINA_SHAPES:
        images, sizes = make_images(*shape)
        boxes, scores, labels = session.run(None, dict(images=images, sizes=sizes))
        expected = by_mmdet(detector, images, sizes)
        assert_same_detections((boxes, scores, labels), expected)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['consistent', 'cascade'])
def test_export_without_suppression_returns_every_anchor(exported, kind):
    detector, session = exported(kind, nms=False)
    for shape in SSD_SHAPES if 'ssd' in kind else RETINA_SHAPES:
        images, sizes = make_images(*shape)
        boxes, scores = session.run(None, dict(images=images, sizes=sizes))
        assert scores.shape == (len(images), boxes.shape[1], 3)
        limit = sizes[:, None, ::-1]
        assert (boxes >= 0).all()
        assert (boxes <= np.tile(limit, (1, 1, 2))).all()
        expected = by_mmdet(detector, images, sizes, nms_pre=10**9, score_thr=-1.0)
        for i, found in enumerate(expected):
            assert len(found) == scores[i].size
            np.testing.assert_allclose(
                np.sort(scores[i].ravel()), found.scores.sort()[0], atol=1e-4
            )
            np.testing.assert_allclose(
                np.sort(boxes[i].repeat(3, 0), axis=0),
                np.sort(found.bboxes.numpy(), axis=0),
                atol=1e-3,
            )


def test_exported_file_names_its_classes_and_input_shapes(exported):
    _, session = exported('consistent', nms=True)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts['classes']) == ['a', 'b', 'c']
    shapes = {x.name: x.shape for x in session.get_inputs()}
    assert shapes == {'images': ['batch', 'height', 'width', 3], 'sizes': ['batch', 2]}


def test_exported_file_pads_an_image_with_few_detections(exported):
    detector, session = exported('consistent', nms=True)
    floor = detector.bbox_head.test_cfg.score_thr
    images = np.zeros((1, 64, 64, 3), np.uint8)
    boxes, scores, labels = session.run(
        None, dict(images=images, sizes=np.array([[64, 64]]))
    )
    found = by_mmdet(detector, images, np.array([[64, 64]]))[0]
    assert (scores[0] > floor).sum() == len(found)
    assert ((labels[0] == -1) == (scores[0] == 0)).all()
    assert boxes.shape == (1, 20, 4)


@pytest.mark.parametrize(
    ('test_cfg', 'message'),
    [
        (dict(nms=dict(type='soft_nms', iou_threshold=0.5)), 'nms.type must be'),
        (dict(nms=dict(iou_threshold=0.5, class_agnostic=True)), 'class_agnostic'),
        (dict(nms=dict(iou_threshold=0.5, max_num=5)), 'nms.max_num must be -1'),
        (dict(nms=dict(iou_threshold=0.5, score_threshold=0.5)), 'nms.score_threshold'),
        (dict(nms=dict(iou_threshold=0.5, offset=1)), 'nms.offset must be 0'),
        (dict(nms=dict(iou_thr=0.5, iou_threshold=0.5)), 'nms.iou_thr must be None'),
        (dict(nms=dict(type='nms')), 'nms.iou_threshold must be a number'),
        (dict(nms=None), 'nms.iou_threshold must be a number'),
        (dict(max_per_img=-1), 'max_per_img must be above 0 .*got -1.*--no-nms'),
        (dict(nms_pre=-1), 'nms_pre must be above 0'),
        (dict(min_bbox_size=4), 'min_bbox_size must be 0 or -1 .*got 4'),
        (dict(score_thr=-1.0), 'score_thr must be at least 0'),
    ],
)
def test_unsupported_suppression_is_refused(test_cfg, message):
    own = model_config('consistent').test_cfg
    (obstacle,) = _suppression_obstacles({**own, **test_cfg})
    assert re.search(message, obstacle)


@pytest.mark.parametrize(
    'nms', [dict(), dict(max_num=-1, score_threshold=0, offset=0, split_thr=9)]
)
def test_suppression_with_mmcvs_own_defaults_is_taken(nms):
    test_cfg = model_config('consistent').test_cfg
    nms = dict(nms, type='nms', iou_threshold=0.5)
    assert list(_suppression_obstacles({**test_cfg, 'nms': nms})) == []


def test_refused_export_leaves_no_file(tmp_path):
    detector = MODELS.build(model_config('consistent', min_bbox_size=4))
    with pytest.raises(ConfigError, match='min_bbox_size'):
        export_onnx(detector, tmp_path / 'model.onnx')
    assert not list(tmp_path.iterdir())


RPN = dict(type='RPNHead', in_channels=16, feat_channels=16)


class OwnPrediction(RetinaHead):
    def _predict_by_feat_single(self, *args, **kwargs):
        return super()._predict_by_feat_single(*args, **kwargs)[:1]


class OwnPreprocessor(DetDataPreprocessor):
    def forward(self, data, training=False):
        return super().forward(dict(data, inputs=1 - data['inputs']), training)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(type='RPN', bbox_head=None, rpn_head=dict(RPN)), "'RPNHead' cannot be"),
        (dict(bbox_head=dict(type=OwnPrediction)), 'its own _predict_by_feat_single'),
        (
            dict(bbox_head=dict(bbox_coder=dict(type='LegacyDeltaXYWHBBoxCoder'))),
            'bbox_coder.type=.LegacyDeltaXYWHBBoxCoder',
        ),
        (dict(data_preprocessor=dict(type=OwnPreprocessor)), 'OwnPreprocessor'),
        (dict(data_preprocessor=None), 'data_preprocessor.type=.BaseDataPreprocessor'),
        (dict(backbone=dict(in_channels=1)), 'no images of three channels'),
        (
            dict(backbone=dict(conv_cfg=dict(type='Conv2dAdaptivePadding'))),
            'padding would be that of one image size',
        ),
    ],
)
def test_detector_that_predicts_otherwise_is_refused(changes, message):
    cfg = model_config("mmdet's")
    for part, fields in changes.items():
        if part in cfg and isinstance(fields, dict):
            cfg[part].update(fields)
        elif fields is None:
            del cfg[part]
        else:
            cfg[part] = fields
    if 'rpn_head' in cfg:
        cfg.train_cfg, cfg.test_cfg = dict(rpn=cfg.train_cfg), dict(rpn=cfg.test_cfg)
    with pytest.raises(ConfigError, match=message):
        DeployableDetector(MODELS.build(cfg), nms=False)


def test_detector_without_bbox_head_is_refused():
    with pytest.raises(ConfigError, match=r'Linear.* has no bbox_head'):
        DeployableDetector(torch.nn.Linear(1, 1), nms=True)


@pytest.mark.parametrize('refused', [False, True])
def test_export_leaves_every_module_in_its_mode(tmp_path, refused):
    detector = MODELS.build(model_config('consistent'))
    modules = list(detector.modules())
    for number, module in enumerate(modules):  # as by freezing parts by hand
        module.training = number % 3 == 0
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    if refused:
        detector.bbox_head.test_cfg.max_per_img = -1
        with pytest.raises(ConfigError):
            export_onnx(detector, tmp_path / 'model.onnx')
    else:
        export_onnx(detector, tmp_path / 'model.onnx')
    assert [m.training for m in modules] == [n % 3 == 0 for n in range(len(modules))]
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
