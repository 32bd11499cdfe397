"""The recorded anchors are those from which the head makes its detections."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import mmdet_consistent  # noqa: F401
from mmdet_consistent.analysis.recorder import (
    NoAnchorsError,
    Recorder,
    find_head,
    nearest,
    rescore_by_iou,
)

GENERATOR = dict(
    type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, strides=[8, 16]
)
ONE = dict(GENERATOR, ratios=[1.0])
CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2))
FOCAL = dict(type='FocalLoss', use_sigmoid=True)
HEADS = {
    'RetinaHead': dict(anchor_generator=dict(GENERATOR, ratios=[0.5, 1.0])),
    'ConsistentRetinaHead': dict(anchor_generator=dict(GENERATOR, ratios=[1.0])),
    'three stages': dict(
        type='ConsistentRetinaHead',
        reg_stages=3,
        label_stages=1,
        anchor_generator=ONE,
    ),
    'cascade': dict(
        type='ConsistentRetinaHead', variant='cascade', anchor_generator=ONE
    ),
    'confidence': dict(
        type='ConsistentRetinaHead',
        anchor_generator=ONE,
        additions=[dict(type='LocalizationConfidence', beta=0.4)],
    ),
    'ATSSHead': dict(
        norm_cfg=None,
        anchor_generator=ONE,
        bbox_coder=CODER,
        loss_cls=FOCAL,
        loss_bbox=dict(type='GIoULoss'),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True),
    ),
    'GFLHead': dict(
        norm_cfg=None,
        anchor_generator=ONE,
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='GIoULoss'),
        reg_max=8,
    ),
    'SSDHead': dict(
        in_channels=(8, 8),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=64,
            min_sizes=[10, 20],
            max_sizes=[20, 40],
            strides=[8, 16],
            ratios=[[2], [2]],
        ),
        bbox_coder=CODER,
    ),
}


def build_head(name, seed=0):
    torch.manual_seed(seed)
    cfg = dict(type=name, num_classes=3, in_channels=8)
    if 'SSD' not in name:
        cfg.update(feat_channels=8, stacked_convs=1)
    cfg.update(HEADS[name])
    test_cfg = dict(
        nms_pre=50,
        score_thr=0.01,
        min_bbox_size=0,
        max_per_img=20,
        nms=dict(type='nms', iou_threshold=0.5),
    )
    head = MODELS.build(dict(cfg, test_cfg=ConfigDict(test_cfg)))
    for parameter in head.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    return head.eval()


def predict(head, images=2):
    torch.manual_seed(1)
    features = (torch.randn(images, 8, 8, 8), torch.randn(images, 8, 4, 4))
    meta = dict(img_shape=(60, 64), scale_factor=(0.5, 0.25))
    with torch.no_grad():
        outs = head(features)
        return head.predict_by_feat(
            *outs, batch_img_metas=[meta] * images, rescale=True
        )


@pytest.mark.parametrize('name', HEADS)
def test_recorder_records_the_anchor_of_every_detection(name):
    head = build_head(name)
    before = predict(head)
    with Recorder(head) as recorder:
        found = predict(head)
    outputs = recorder.take()
    assert len(outputs) == 2
    for alone, watched, output in zip(before, found, outputs):
        assert len(watched) > 0
        torch.testing.assert_close(watched.bboxes, alone.bboxes, rtol=0, atol=0)
        torch.testing.assert_close(watched.scores, alone.scores, rtol=0, atol=0)
        for box, score, label in zip(watched.bboxes, watched.scores, watched.labels):
            same_box = (output.boxes[-1] - box).abs().amax(1) < 1e-3
            same_score = (output.scores[:, label] - score).abs() < 1e-5
            assert (same_box & same_score).any()
        stages = len(getattr(head.bbox_coder, 'stages', [0]))
        assert len(output.boxes) == stages + 1
        assert all(len(boxes) == len(output.scores) for boxes in output.boxes)
        # NMS of the candidates gives the detections.
        again = head._bbox_post_process(
            output.candidates, cfg=head.test_cfg, rescale=False, img_meta={}
        )
        torch.testing.assert_close(again.bboxes, watched.bboxes)
    assert recorder.take() == []
    assert '_predict_by_feat_single' not in head.__dict__


def test_recorder_gives_prior_anchors_in_pixels_of_the_original_image():
    head = build_head('RetinaHead')
    with Recorder(head) as recorder:
        predict(head, images=1)
    priors = recorder.take()[0].boxes[0]
    # Stride 8, scale 4: 32 × 32 at ratio 1, centred on 0; scaled by 2 and by 4.
    torch.testing.assert_close(priors[1], torch.tensor([-32.0, -64.0, 32.0, 64.0]))


def test_recorder_restores_the_head_after_an_error():
    head = build_head('RetinaHead')
    with pytest.raises(RuntimeError, match='stop'), Recorder(head):
        raise RuntimeError('stop')
    assert '_predict_by_feat_single' not in head.__dict__


def test_find_head_names_a_model_without_anchors():
    model = torch.nn.Module()
    with pytest.raises(NoAnchorsError, match='Module with no bbox_head'):
        find_head(model)
    cfg = dict(type='FCOSHead', num_classes=3, in_channels=8, norm_cfg=None)
    model.bbox_head = MODELS.build(cfg)
    with pytest.raises(NoAnchorsError, match='with FCOSHead has no anchors'):
        find_head(model)

    class OwnWay(MODELS.get('RetinaHead')):
        def _predict_by_feat_single(self, *args, **kwargs):
            return super()._predict_by_feat_single(*args, **kwargs)

    model.bbox_head = OwnWay(3, 8)
    with pytest.raises(NoAnchorsError, match='OwnWay overrides _predict'):
        find_head(model)
    model.bbox_head = head = build_head('RetinaHead')
    assert find_head(model) is head


@pytest.mark.parametrize('chunk', [1, 2, 16])
def test_nearest_finds_the_ground_truth_with_the_highest_iou(chunk):
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 5]])
    gts = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 10], [0, 5, 10, 10]])
    iou, index = nearest(boxes, gts, chunk)
    torch.testing.assert_close(iou, torch.tensor([1.0, 0, 1.0]))
    assert index.tolist() == [1, -1, 0]
    iou, index = nearest(boxes, gts[:0], chunk)
    assert iou.tolist() == [0, 0, 0]
    assert index.tolist() == [-1] * 3


def test_rescore_by_iou_keeps_the_better_box():
    head = build_head('RetinaHead')
    candidates = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 9], [0, 0, 10, 10]]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        labels=torch.tensor([0, 0, 1]),
    )
    gt_bboxes = torch.tensor([[0.0, 0, 10, 10]])
    oracle = rescore_by_iou(head, candidates, gt_bboxes, torch.tensor([0]))
    # The first is suppressed now; the third is of another class: no object, 0.
    torch.testing.assert_close(oracle.bboxes, candidates.bboxes[1:])
    torch.testing.assert_close(oracle.scores, torch.tensor([0.9, 0.0]))
    assert candidates.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
