"""Every head of mmdet with anchors: one stage equals its base, two stages train."""

import pytest
import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config

from mmdet_consistent import ConsistentMixin, make_consistent
from mmdet_consistent.heads.other import yolact
from mmdet_consistent.heads.other.make_consistent import NAMED, REFUSED
from tests.support import other_heads
from tests.support.builders import ground_truth, metas, total_loss
from tests.support.other_heads import (
    build,
    build_consistent,
    losses_of,
    predictions_of,
    small_config,
    two_boxes,
)

NAMES = [head.__name__ for head in NAMED]


def skip_without_its_package(name):
    if name == 'PAAHead':
        pytest.importorskip('sklearn', reason="mmdet's PAAHead needs scikit-learn")


@pytest.mark.parametrize('name', NAMES)
def test_one_stage_equals_the_base_head_bit_for_bit(name, monkeypatch):
    skip_without_its_package(name)
    made = make_consistent(other_heads.heads()[name])
    monkeypatch.setattr(made, 'can_fuse_first_stage', lambda self: False)
    config = small_config(name)
    base = build(config)
    gts = other_heads.predicted_ground_truth(base)
    one = build(dict(config, type=made.__name__), label_stages=1, reg_stages=1)
    one.load_state_dict(base.state_dict())
    theirs, ours = losses_of(base, gts), losses_of(one, gts)
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
    for a, b in zip(predictions_of(base), predictions_of(one)):
        assert torch.equal(a.bboxes, b.bboxes)
        assert torch.equal(a.scores, b.scores)


@pytest.mark.parametrize('name', NAMES)
def test_base_checkpoint_lacks_only_later_stages_and_predicts_the_same(name):
    skip_without_its_package(name)
    config = small_config(name)
    base, two = build(config), build_consistent(name)
    missing = two.load_state_dict(base.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all('later_stages' in key for key in missing.missing_keys)
    # Composed deltas are rounded again; pixels.
    for a, b in zip(predictions_of(base), predictions_of(two)):
        assert len(a) == len(b) > 0
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.bboxes, b.bboxes, atol=1e-2, rtol=0)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.works_with(
    "MMDetection's anchor-based heads",
    'train them with several label sets',
    'any_head.md#supported-heads',
)
def test_two_stages_train_every_parameter_that_the_base_trains(name):
    skip_without_its_package(name)
    base, two = build(small_config(name)), build_consistent(name)
    two.load_state_dict(base.state_dict(), strict=False)
    gts = other_heads.predicted_ground_truth(base)
    losses = losses_of(two, gts)
    for key in ('loss_cls_s1', 'loss_bbox_s1'):
        assert 0 < losses[key] < float('inf'), key
    untrained = []
    for head in (base, two):
        values = losses_of(head, gts)
        total_loss(values).backward()
        untrained.append(
            {
                k
                for k, p in head.named_parameters()
                if p.requires_grad and p.grad is None
            }
        )
    assert untrained[1] <= untrained[0]
    later = [p for key, p in two.named_parameters() if 'later_stages' in key]
    assert any(p.grad.abs().sum() > 0 for p in later)
    torch.optim.SGD(two.parameters(), lr=0.01).step()
    for found in predictions_of(two):
        assert torch.isfinite(found.bboxes).all()


def test_each_head_of_mmdet_has_a_version_or_a_reason():
    for name, head in other_heads.heads().items():
        if issubclass(head, ConsistentMixin):
            continue
        if name in NAMES:
            assert issubclass(make_consistent(head), head)
        else:
            with pytest.raises(ValueError, match=f'{name} has no consistent version'):
                make_consistent(head)
    assert set(REFUSED).isdisjoint(NAMES)


def test_options_that_a_head_cannot_support_are_refused():
    message = "ConsistentATSSHead does not expose .*; use cls_normalizer='stage'"
    with pytest.raises(ValueError, match=message):
        build_consistent('ATSSHead', cls_normalizer='first')
    head = build_consistent('FreeAnchorRetinaHead', stage_loss_weights=(0.5, 1.0))
    name = 'ConsistentFreeAnchorRetinaHead has no classification part'
    with pytest.raises(ValueError, match=name):
        losses_of(head, two_boxes())
    message = "ConsistentATSSHead has no such variant; use variant='consistent'"
    with pytest.raises(ValueError, match=message):
        build_consistent('ATSSHead', variant='cascade')


@pytest.mark.parametrize(
    ('name', 'labels', 'boxes'),
    [
        ('RPNHead', 'loss_rpn_cls', 'loss_rpn_bbox'),  # lists, one value a level
        ('YOLOFHead', 'loss_cls', 'loss_bbox'),  # tensors
    ],
)
def test_stage_loss_weights_scale_the_base_heads_labels(name, labels, boxes):
    gts = two_boxes()
    plain = losses_of(build_consistent(name), gts)
    half = losses_of(build_consistent(name, stage_loss_weights=(0.5, 1)), gts)
    torch.testing.assert_close(half[labels], plain[labels] / 2)
    torch.testing.assert_close(half[boxes], plain[boxes])
    torch.testing.assert_close(half['loss_cls_s1'], plain['loss_cls_s1'])


def test_yolact_later_labels_get_its_loss_weight(monkeypatch):
    config = dict(small_config('YOLACTHead'), type='ConsistentYOLACTHead')
    loss = dict(type='CrossEntropyLoss', use_sigmoid=False, reduction='none')
    head = build(config, loss_cls=dict(loss, loss_weight=3.0))
    sums = [torch.tensor(4.0), torch.tensor(0.5)]
    monkeypatch.setattr(yolact, 'mined_label_set_losses', lambda *args: sums)
    assert head.label_losses([], [], []) == [12.0, 1.5]


def test_loss_by_feat_passes_further_outputs_to_the_base_head(monkeypatch):
    head = build_consistent('ATSSHead')  # centernesses come third
    monkeypatch.setattr(
        ConsistentMixin, 'loss_by_feat', lambda self, *args, **options: (args, options)
    )
    one, gts = [torch.zeros(1)], two_boxes()
    args, options = head.loss_by_feat(one, one, one, gts, [{}], None)
    assert args == (one, one, gts, [{}], None)
    assert options == dict(other_outputs=(one,))
    args, options = build_consistent('FSAFHead').loss_by_feat(one, one, gts, [{}])
    assert args == (one, one, gts, [{}])
    assert options == dict(other_outputs=())


def test_rpn_exposes_the_normaliser_of_its_first_stage():
    assert build_consistent('RPNHead', cls_normalizer='first').cls_normalizer == 'first'


def test_cached_anchors_survive_a_head_that_writes_into_its_lists():
    head = build_consistent('ATSSHead')  # its get_targets writes into them
    gts = two_boxes()
    first, second = losses_of(head, gts), losses_of(head, gts)
    for name, value in first.items():
        assert torch.equal(value, second[name])


@pytest.mark.works_with(
    "MMDetection's Faster R-CNN",
    'refine proposals by a consistent RPN',
    'any_head.md',
)
def test_faster_rcnn_trains_and_predicts_with_a_consistent_rpn():
    config = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    config.backbone.update(depth=18, base_channels=8, init_cfg=None, frozen_stages=-1)
    config.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    config.rpn_head.update(type='ConsistentRPNHead', in_channels=16, feat_channels=16)
    config.roi_head.bbox_roi_extractor.out_channels = 16
    config.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16, num_classes=3)
    torch.manual_seed(0)
    detector = MODELS.build(ConfigDict(config))
    assert issubclass(make_consistent(RPNHead), type(detector.rpn_head))
    samples = []
    for gt in ground_truth():
        sample = DetDataSample(gt_instances=gt, metainfo=metas(1)[0])
        sample.set_metainfo(dict(batch_input_shape=(128, 128)))
        samples.append(sample)
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    losses = detector.loss(images, samples)
    assert {'rpn_loss_cls_s1', 'rpn_loss_bbox_s1', 'loss_rpn_cls'} <= set(losses)
    total, _ = detector.parse_losses(losses)
    total.backward()
    assert detector.rpn_head.rpn_reg.later_stages[0].bias.grad is not None
    detector.eval()
    with torch.no_grad():
        found = detector.predict(images, samples)
    assert all(torch.isfinite(x.pred_instances.bboxes).all() for x in found)
