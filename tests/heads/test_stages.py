"""Each stage has its own coder and its own losses; boxes gone astray are out."""

import copy

import pytest
import torch
from mmdet.models.losses import L1Loss
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.registry import MODELS, TASK_UTILS

from mmdet_consistent.heads.anchors import refine_boxes
from tests.reference import consistent as reference
from tests.support.builders import (
    as_scalars,
    build_head,
    features,
    ground_truth,
    losses_of,
    metas,
)
from tests.support.naive import equals_the_naive_reference

STDS = ((0.1, 0.1, 0.2, 0.2), (0.3, 0.2, 0.5, 0.4), (1.0, 0.5, 0.3, 0.1))


def test_refine_boxes_uses_each_stages_own_coder():
    coders = [dict(type='DeltaXYWHBBoxCoder', target_stds=list(s)) for s in STDS]
    head = build_head(reg_stages=3, bbox_coder=coders[0], stage_bbox_coders=coders[1:])
    torch.manual_seed(0)
    corner = torch.rand(2, 7, 2) * 80
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, 7, 2) * 40], dim=-1)
    valid = torch.ones(2, 7, dtype=torch.bool)
    naive = boxes.flatten(0, 1).tolist()
    for stage in (1, 2, 3):
        deltas = torch.randn(2, 7, 4)
        coder = head.stages[stage - 1].bbox_coder
        boxes, valid = refine_boxes(coder, boxes, valid, deltas)
        naive = [
            reference.decode(box, row, stds=STDS[stage - 1])
            for box, row in zip(naive, deltas.flatten(0, 1))
        ]
        expected = torch.tensor(naive).view_as(boxes)
        torch.testing.assert_close(boxes, expected, rtol=1e-4, atol=1e-3)
        assert valid.all()


@pytest.mark.parametrize('side', [1e-30, 1e25, float('inf'), float('nan'), 0.0, -5.0])
def test_refine_boxes_excludes_boxes_without_area_for_good(side):
    """Its area is 0, infinite or no number; what it was before stays."""
    head = build_head(reg_stages=3)
    boxes = torch.tensor([[[0, 0, side, side], [10, 10, 30, 40.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    for stage in (1, 2):
        before, deltas = boxes, torch.full((1, 2, 4), 0.1)
        coder = head.stages[stage - 1].bbox_coder
        boxes, valid = refine_boxes(coder, before, valid, deltas)
        assert valid.tolist() == [[False, True]]
        torch.testing.assert_close(boxes[0, 0], before[0, 0], equal_nan=True)
        expected = reference.decode(before[0, 1].tolist(), deltas[0, 1])
        torch.testing.assert_close(boxes[0, 1], torch.tensor(expected))


def test_refine_boxes_keeps_boxes_below_a_pixel_valid():
    boxes = torch.tensor([[[3.0, 3.0, 3.5, 3.2]]])
    valid = torch.ones(1, 1, dtype=torch.bool)
    coder = build_head().stages[0].bbox_coder
    refined, still = refine_boxes(coder, boxes, valid, torch.zeros(1, 1, 4))
    torch.testing.assert_close(refined, boxes)
    assert still.all()


@pytest.mark.parametrize('kind', ['cls', 'bbox'])
def test_stages_share_a_stateless_loss_so_that_changes_reach_all(kind):
    head = build_head()
    plain = losses_of(head)
    getattr(head, f'loss_{kind}').loss_weight *= 2
    doubled = losses_of(head)
    for name in (f'loss_{kind}', f'loss_{kind}_s1'):
        torch.testing.assert_close(doubled[name], 2 * plain[name])
    assert not any('stage_loss' in name for name in head.state_dict())


def test_stateful_losses_keep_statistics_per_stage():
    head = build_head(
        loss_cls=dict(type='GHMC', bins=5, momentum=0.75, use_sigmoid=True),
        loss_bbox=dict(type='GHMR', mu=0.02, bins=5, momentum=0.7),
    )
    losses_of(head)
    for first, later in (
        (head.loss_cls, head.stage_loss_cls[0]),
        (head.loss_bbox, head.stage_loss_bbox[0]),
    ):
        assert first.acc_sum.any()
        assert later.acc_sum.any()
        assert not torch.equal(first.acc_sum, later.acc_sum)


def test_first_stage_equals_mmdet_with_one_image_and_level():
    levels = features()[1][:1]  # strides of 32, the first image
    generator = dict(type='AnchorGenerator', scales=[2, 3], ratios=[1.0], strides=[32])
    base = build_head('RetinaHead', anchor_generator=generator)
    ours = build_head(anchor_generator=generator)
    ours.load_state_dict(base.state_dict(), strict=False)
    expected, actual = (
        as_scalars(head.loss_by_feat(*head([levels]), ground_truth()[:1], metas(1)))
        for head in (base, ours)
    )
    torch.testing.assert_close(actual['loss_cls'], expected['loss_cls'])
    torch.testing.assert_close(actual['loss_bbox'], expected['loss_bbox'])
    assert actual['num_pos'] > 0


def test_single_positive_equals_the_naive_reference():
    boxes = [[[34, 66, 97, 127]], []]
    losses = equals_the_naive_reference(
        build_head(), 0, boxes, [[], []], 0.01, weights=[1, 1], ignore_iof_thr=-1
    )
    assert losses['num_pos_s1'] == 1


def test_own_assigner_subclass_is_called():
    @TASK_UTILS.register_module(force=True)
    class OwnAssigner(MaxIoUAssigner):
        """The same rule, but how should the head know?"""

    rule = dict(pos_iou_thr=0.6, neg_iou_thr=0.5, match_low_quality=False)
    head = build_head(stage_assigners=dict(type='OwnAssigner', **rule))
    TASK_UTILS.module_dict.pop('OwnAssigner')
    actual, expected = losses_of(head), losses_of(build_head())
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, msg=key)
    assert actual['num_pos_s1'] > 0


@pytest.mark.parametrize('as_list', [False, True])
def test_init_weights_keeps_later_stages_of_a_pretrained_file(tmp_path, as_list):
    trained = build_head()
    torch.nn.init.normal_(trained.retina_reg.later_stages[0].weight)
    path = tmp_path / 'head.pth'
    torch.save(dict(state_dict=trained.state_dict()), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    if as_list:
        init_cfg = [dict(type='Normal', layer='Conv2d', std=0.01), init_cfg]
    head = build_head(init_cfg=init_cfg)
    head.init_weights()
    for name, value in trained.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name


@pytest.mark.parametrize('variant', ['consistent', 'cascade'])
def test_second_init_weights_changes_nothing(variant):
    head = build_head(variant=variant)
    head.init_weights()
    for parameter in head.parameters():  # as if trained
        torch.nn.init.normal_(parameter)
    trained = copy.deepcopy(head.state_dict())
    head.init_weights()
    for name, value in trained.items():
        assert torch.equal(head.state_dict()[name], value), name


def test_init_weights_lets_later_stages_leave_boxes_unchanged():
    named = dict(type='Normal', name='retina_reg', std=1.0)
    head = build_head(
        init_cfg=dict(type='Normal', layer='Conv2d', std=0.01, override=named)
    )
    head.init_weights()
    assert head.retina_reg.weight.std() > 0.5
    assert not head.retina_reg.later_stages[0].weight.any()


def test_unknown_box_loss_gets_weights_and_avg_factor():
    @MODELS.register_module(force=True)
    class WeightedL1(L1Loss):
        def forward(self, pred, target, weight, avg_factor):
            assert weight.shape == pred.shape
            return super().forward(pred, target, weight, avg_factor=avg_factor)

    plain = losses_of(build_head(loss_bbox=dict(type='L1Loss', loss_weight=3.0)))
    ours = losses_of(build_head(loss_bbox=dict(type='WeightedL1', loss_weight=3.0)))
    MODELS.module_dict.pop('WeightedL1')
    torch.testing.assert_close(ours['loss_bbox_s1'], plain['loss_bbox_s1'])
