import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.hub import get_config

from mmdet_consistent import ConsistentSSDHead
from tests.support.builders import (
    as_scalars,
    ground_truth,
    instances,
    metas,
    total_loss,
)
from tests.support.naive import equals_the_naive_reference
from tests.support.ssd_builders import build_ssd_head, ssd_features
from tests.support.strategies import boxes as boxes_of_sides

NO_LATER = dict(label_stages=1, reg_stages=1)
SETTINGS = {
    'plain': {},
    'decoded': dict(reg_decoded_bbox=True),
    'depthwise_towers': dict(stacked_convs=1, feat_channels=8, use_depthwise=True),
    'border': dict(train_cfg=dict(allowed_border=16)),
    'beta': dict(train_cfg=dict(smoothl1_beta=0.1)),
    'few_negatives': dict(train_cfg=dict(neg_pos_ratio=1)),
    'many_negatives': dict(train_cfg=dict(neg_pos_ratio=1000)),
}


def losses_of(head, gts, ignores=None):
    return as_scalars(head.loss_by_feat(*head(ssd_features()), gts, metas(), ignores))


def leave_first_stage_to_base_head(monkeypatch):
    monkeypatch.setattr(ConsistentSSDHead, 'can_fuse_first_stage', lambda self: False)


@pytest.mark.parametrize('with_base_code', [False, True])
@pytest.mark.parametrize('name', SETTINGS)
def test_one_stage_equals_mmdets_head(name, with_base_code, monkeypatch):
    if with_base_code:
        leave_first_stage_to_base_head(monkeypatch)
    base = build_ssd_head('SSDHead', **SETTINGS[name])
    ours = build_ssd_head(**SETTINGS[name], **NO_LATER)
    ours.load_state_dict(base.state_dict())
    assert ours.first_stage.is_fused is not with_base_code
    expected, actual = losses_of(base, ground_truth()), losses_of(ours, ground_truth())
    for key, value in expected.items():
        torch.testing.assert_close(
            actual[key].sum(), value.sum(), rtol=0 if with_base_code else 1e-6, atol=0
        )
    total_loss(expected).backward()
    total_loss(actual).backward()
    theirs = dict(base.named_parameters())
    for key, parameter in ours.named_parameters():
        grad, other = parameter.grad, theirs[key].grad
        error = (grad - other).abs().max()
        limit = 0 if with_base_code else 2e-6 * other.abs().max() + 1e-9
        assert error <= limit, key
    for a, b in zip(
        base.predict_by_feat(*base(ssd_features()), batch_img_metas=metas()),
        ours.predict_by_feat(*ours(ssd_features()), batch_img_metas=metas()),
    ):
        assert torch.equal(a.bboxes, b.bboxes)
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize('name', SETTINGS)
def test_two_stages_train_every_parameter(name):
    head = build_ssd_head(**SETTINGS[name])
    losses = losses_of(head, ground_truth())
    assert set(losses) == {
        'loss_cls',
        'loss_bbox',
        'loss_cls_s1',
        'loss_bbox_s1',
        'num_pos',
        'num_pos_s1',
    }
    total_loss(losses).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_baseline_checkpoint_lacks_only_later_stages():
    base, ours = build_ssd_head('SSDHead'), build_ssd_head()
    result = ours.load_state_dict(base.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert sorted(result.missing_keys) == [
        f'reg_convs.{level}.0.later_stages.0.{name}'
        for level in range(3)
        for name in ('bias', 'weight')
    ]


def test_fresh_second_stage_leaves_boxes_unchanged():
    base, ours = build_ssd_head('SSDHead'), build_ssd_head()
    ours.init_weights()
    ours.load_state_dict(base.state_dict(), strict=False)
    for a, b in zip(
        base.predict_by_feat(*base(ssd_features()), batch_img_metas=metas()),
        ours.predict_by_feat(*ours(ssd_features()), batch_img_metas=metas()),
    ):
        torch.testing.assert_close(a.scores, b.scores)
        assert (a.bboxes - b.bboxes).abs().max() < 1


BOX = boxes_of_sides(8, 90)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    boxes=st.lists(st.lists(BOX, max_size=4), min_size=2, max_size=2),
    ignores=st.lists(st.lists(BOX, max_size=2), min_size=2, max_size=2),
    stages=st.sampled_from([(2, 2), (2, 1), (3, 2), (1, 2)]),
    ignore_iof_thr=st.sampled_from([-1, 0.5]),
    ratio=st.sampled_from([0, 1, 3]),
    beta=st.sampled_from([1.0, 0.3]),
)
def test_later_stages_equal_the_naive_reference(
    seed, boxes, ignores, stages, ignore_iof_thr, ratio, beta
):
    label_stages, reg_stages = stages
    weights = [1.0, 0.7, 1.3][:label_stages]
    assigner = dict(
        type='MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.5,
        ignore_iof_thr=ignore_iof_thr,
        gt_max_assign_all=False,
    )
    head = build_ssd_head(
        label_stages=label_stages,
        reg_stages=reg_stages,
        stage_loss_weights=weights,
        train_cfg=dict(assigner=assigner, neg_pos_ratio=ratio, smoothl1_beta=beta),
    )
    equals_the_naive_reference(
        head,
        seed,
        boxes,
        ignores,
        spread=1.0,
        weights=weights,
        ignore_iof_thr=ignore_iof_thr,
        ssd=dict(ratio=ratio, beta=beta, stds=(0.1, 0.1, 0.2, 0.2)),
    )


@pytest.mark.parametrize('name', ['ssd300_coco', 'ssd512_coco'])
def test_every_ssd_config_of_mmdet_trains_with_the_head(name):
    config = get_config(f'mmdet::ssd/{name}.py').model
    head = dict(config.bbox_head, type='ConsistentSSDHead')
    head.update(
        in_channels=[8] * len(config.bbox_head.in_channels),
        train_cfg=config.train_cfg,
        test_cfg=config.test_cfg,
    )
    built = MODELS.build(head)
    built.init_weights()
    sizes = [max(1, 128 // s[0]) for s in built.prior_generator.strides]
    levels = [torch.randn(1, 8, size, size) for size in sizes]
    gts = [instances([[8, 8, 70, 90], [40, 30, 110, 100]], [3, 77])]
    losses = as_scalars(built.loss_by_feat(*built(levels), gts, metas(1)))
    total_loss(losses).backward()
    assert losses['num_pos_s1'] > 0
    for layers in built.reg_convs:
        assert layers[-1].later_stages[0].bias.grad is not None
