from pathlib import Path

import mmdet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.hub import get_config

from mmdet_consistent import ConsistentRetinaHead
from mmdet_consistent.task_modules.box_deltas import decode_boxes
from tests.reference import consistent as reference
from tests.support.builders import (
    HEAD,
    SAMPLING,
    as_scalars,
    assert_refused,
    build_head,
    features,
    ground_truth,
    instances,
    metas,
    total_loss,
)
from tests.support.naive import equals_the_naive_reference
from tests.support.strategies import boxes as boxes_of_sides

NO_LATER = dict(label_stages=1, reg_stages=1)
IOU_LOSS = dict(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss', loss_weight=2.0))
SOFTMAX = dict(loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False))
GHM = dict(
    loss_cls=dict(type='GHMC', bins=30, momentum=0.75, use_sigmoid=True),
    loss_bbox=dict(type='GHMR', mu=0.02, bins=10, momentum=0.7, loss_weight=10.0),
)
SETTINGS = {
    'focal': {},
    'iou': IOU_LOSS,
    'softmax': SOFTMAX,
    'sampling': SAMPLING,
    'ghm': GHM,
    'other_focal': dict(
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.6, loss_weight=0.5
        )
    ),
    'one_class': dict(num_classes=1),
    'means_and_stds': dict(
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.1, 0.0, 0.2, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        )
    ),
    'border': dict(train_cfg=dict(allowed_border=16, pos_weight=2.0)),
    'ssd_like_anchors': dict(
        anchor_generator=dict(
            type='AnchorGenerator',
            scales=[2, 3],
            ratios=[0.5, 1.0, 2.0],
            strides=[16, 32, 64],
        )
    ),
}


def one_class(gts):
    for gt in gts:
        gt.labels.zero_()
    return gts


def losses_of(head, gts, ignores=None):
    torch.manual_seed(0)  # samplers draw
    return as_scalars(head.loss_by_feat(*head(features()), gts, metas(), ignores))


def leave_first_stage_to_base_head(monkeypatch):
    monkeypatch.setattr(
        ConsistentRetinaHead, 'can_fuse_first_stage', lambda self: False
    )


def same_bits(actual, expected, key):
    assert torch.equal(actual, expected), key


def within_rounding(actual, expected, key):
    """1e-6 of the largest value: sums are added up in another order."""
    error = (actual - expected).abs().max()
    assert error <= 2e-6 * expected.abs().max() + 1e-9, (key, error)


FUSED = {
    'focal',
    'other_focal',
    'iou',
    'one_class',
    'means_and_stds',
    'border',
    'ssd_like_anchors',
}


@pytest.mark.parametrize('with_base_code', [False, True])
@pytest.mark.parametrize('name', SETTINGS)
def test_one_stage_equals_mmdets_head(name, with_base_code, monkeypatch):
    if with_base_code:
        leave_first_stage_to_base_head(monkeypatch)
    options = SETTINGS[name]
    base = build_head('RetinaHead', **options)
    ours = build_head(**options, **NO_LATER)
    assert ours.first_stage.is_fused == (name in FUSED and not with_base_code)
    same = same_bits if with_base_code or name not in FUSED else within_rounding
    ours.load_state_dict(base.state_dict())
    gts = one_class(ground_truth()) if name == 'one_class' else ground_truth()
    expected, actual = losses_of(base, gts), losses_of(ours, gts)
    for key, value in expected.items():
        same(actual[key], value, key)
    sum(expected.values()).backward()
    total_loss(actual).backward()
    theirs = dict(base.named_parameters())
    for key, parameter in ours.named_parameters():
        same(parameter.grad, theirs[key].grad, key)
    for a, b in zip(
        base.predict_by_feat(*base(features()), batch_img_metas=metas()),
        ours.predict_by_feat(*ours(features()), batch_img_metas=metas()),
    ):
        assert torch.equal(a.bboxes, b.bboxes)
        assert torch.equal(a.scores, b.scores)


@pytest.mark.parametrize('name', SETTINGS)
def test_two_stages_train_every_parameter_with_any_loss(name):
    head = build_head(**SETTINGS[name])
    gts = one_class(ground_truth()) if name == 'one_class' else ground_truth()
    losses = losses_of(head, gts)
    assert set(losses) == {
        'loss_cls',
        'loss_bbox',
        'loss_cls_s1',
        'loss_bbox_s1',
        'num_pos',
        'num_pos_s1',
    }
    assert losses['num_pos_s1'] > 0
    total_loss(losses).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    later = head.retina_reg.later_stages[0]
    assert later.weight.grad.abs().sum() > 0


def test_num_pos_is_the_same_from_fused_and_base_head_code(monkeypatch):
    ours = losses_of(build_head(), ground_truth())
    leave_first_stage_to_base_head(monkeypatch)
    theirs = losses_of(build_head(), ground_truth())
    assert ours['num_pos'] == theirs['num_pos'] > 0
    assert ours['num_pos_s1'] == theirs['num_pos_s1'] > 0


@pytest.mark.parametrize('name', SETTINGS)
def test_first_of_two_stages_equals_the_base_head(name):
    options = SETTINGS[name]
    base = build_head('RetinaHead', **options)
    ours = build_head(**options)
    ours.load_state_dict(base.state_dict(), strict=False)
    gts = one_class(ground_truth()) if name == 'one_class' else ground_truth()
    expected, actual = losses_of(base, gts), losses_of(ours, gts)
    torch.testing.assert_close(actual['loss_cls'], expected['loss_cls'])
    torch.testing.assert_close(actual['loss_bbox'], expected['loss_bbox'])


@pytest.mark.parametrize('with_base_code', [False, True])
def test_first_stage_treats_ignore_regions_as_mmdet(with_base_code, monkeypatch):
    rule = dict(HEAD['train_cfg']['assigner'], ignore_iof_thr=0.3)
    options = dict(train_cfg=dict(assigner=rule))
    if with_base_code:
        leave_first_stage_to_base_head(monkeypatch)
    base, ours = build_head('RetinaHead', **options), build_head(**options)
    ours.load_state_dict(base.state_dict(), strict=False)
    ignores = [instances([[60, 60, 128, 128]], [0]), instances([], [])]
    expected = losses_of(base, ground_truth(), ignores)
    actual = losses_of(ours, ground_truth(), ignores)
    torch.testing.assert_close(actual['loss_cls'], expected['loss_cls'])
    torch.testing.assert_close(actual['loss_bbox'], expected['loss_bbox'])
    assert actual['loss_cls'] != losses_of(ours, ground_truth())['loss_cls']


def test_predict_by_feat_takes_score_factors_by_position():
    base, ours = build_head('RetinaHead'), build_head()
    ours.load_state_dict(base.state_dict(), strict=False)
    factors = [torch.rand(2, 2, *x.shape[-2:]) for x in features()]
    found = [
        head.predict_by_feat(*head(features()), factors, metas())
        for head in (base, ours)
    ]
    for theirs, own in zip(*found):
        assert torch.equal(own.scores, theirs.scores)


def test_baseline_checkpoint_lacks_only_later_stages():
    base, ours = build_head('RetinaHead'), build_head(seed=1)
    result = ours.load_state_dict(base.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert sorted(result.missing_keys) == [
        'retina_reg.later_stages.0.bias',
        'retina_reg.later_stages.0.weight',
    ]


@pytest.mark.parametrize('name', ['focal', 'means_and_stds'])
def test_fresh_second_stage_leaves_boxes_unchanged(name):
    base = build_head('RetinaHead', **SETTINGS[name])
    ours = build_head(**SETTINGS[name])
    ours.init_weights()
    ours.load_state_dict(base.state_dict(), strict=False)
    for a, b in zip(
        base.predict_by_feat(*base(features()), batch_img_metas=metas()),
        ours.predict_by_feat(*ours(features()), batch_img_metas=metas()),
    ):
        torch.testing.assert_close(a.scores, b.scores)
        assert (a.bboxes - b.bboxes).abs().max() < 1


def test_later_losses_have_no_gradient_through_the_decode():
    head = build_head()
    cls_scores, bbox_preds = head(features())
    bbox_preds = [p.detach().requires_grad_() for p in bbox_preds]
    losses = head.loss_by_feat(cls_scores, bbox_preds, ground_truth(), metas())
    sum(losses['loss_bbox_s1'] + losses['loss_cls_s1']).backward()
    touched = 0
    for pred in bbox_preds:
        staged = pred.grad.unflatten(1, (-1, 2, 4))
        assert not staged[:, :, 0].any()
        touched += staged[:, :, 1].abs().sum()
    assert touched > 0


def test_predict_by_feat_decodes_twice_and_clips_once():
    head = build_head(test_cfg=None)
    torch.nn.init.normal_(head.retina_reg.later_stages[0].weight, std=0.05)
    cls_scores, bbox_preds = head(features(1))
    cfg = ConfigDict(nms_pre=10_000, score_thr=-1, min_bbox_size=-1)
    result = head.predict_by_feat(
        cls_scores, bbox_preds, batch_img_metas=metas(1), cfg=cfg, with_nms=False
    )[0]
    priors = torch.cat(
        head.prior_generator.grid_priors(
            [s.shape[-2:] for s in cls_scores], device='cpu'
        )
    )
    deltas = torch.cat(
        [p.permute(0, 2, 3, 1).reshape(-1, 8) for p in bbox_preds]
    ).detach()
    # One row an anchor and class: look at the set of boxes.
    expected = []
    for prior, row in zip(priors.tolist(), deltas):
        box = reference.decode(reference.decode(prior, row[:4]), row[4:])
        expected.append([min(max(v, 0), 128) for v in box])
    expected = torch.tensor(expected)
    distance = torch.cdist(result.bboxes, expected, p=float('inf')).min(dim=1).values
    assert len(result.bboxes) == len(expected) * 3
    assert distance.max() < 1e-3


BOX = boxes_of_sides(8, 90)
STAGES = st.sampled_from([(2, 2), (2, 1), (3, 2), (1, 2), (3, 3)])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    boxes=st.lists(st.lists(BOX, max_size=4), min_size=2, max_size=2),
    ignores=st.lists(st.lists(BOX, max_size=2), min_size=2, max_size=2),
    stages=STAGES,
    ignore_iof_thr=st.sampled_from([-1, 0.5]),
    border=st.sampled_from([-1, 24]),
)
def test_later_stages_equal_the_naive_reference(
    seed, boxes, ignores, stages, ignore_iof_thr, border
):
    label_stages, reg_stages = stages
    weights = [1.0, 0.7, 1.3][:label_stages]
    head = build_head(
        label_stages=label_stages,
        reg_stages=reg_stages,
        stage_loss_weights=weights,
        train_cfg=dict(
            allowed_border=border,
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                ignore_iof_thr=ignore_iof_thr,
            ),
        ),
    )
    equals_the_naive_reference(
        head,
        seed,
        boxes,
        ignores,
        spread=0.2,
        weights=weights,
        ignore_iof_thr=ignore_iof_thr,
    )


@pytest.mark.parametrize('name', ['focal', 'ghm'])
@pytest.mark.parametrize('weights', [(0, 1), (1, 0), (0.5, 2.5), (2, 1)])
def test_stage_loss_weights_scale_their_label_sets(weights, name):
    options = SETTINGS[name]
    plain = losses_of(build_head(**options), ground_truth())
    scaled = losses_of(
        build_head(stage_loss_weights=weights, **options), ground_truth()
    )
    torch.testing.assert_close(scaled['loss_cls'], weights[0] * plain['loss_cls'])
    if weights[1] == 0:
        assert 'loss_cls_s1' not in scaled
    else:
        torch.testing.assert_close(
            scaled['loss_cls_s1'], weights[1] * plain['loss_cls_s1']
        )
    assert torch.equal(scaled['loss_bbox'], plain['loss_bbox'])
    assert torch.equal(scaled['loss_bbox_s1'], plain['loss_bbox_s1'])


@pytest.mark.parametrize('name', ['focal', 'softmax'])
def test_cls_normalizer_first_divides_all_label_sets_by_first_positives(name):
    """Softmax: there the base head's own code counts the first stage."""
    options = SETTINGS[name]
    own = losses_of(build_head(cls_normalizer='stage', **options), ground_truth())
    head = build_head(**options)
    assert head.cls_normalizer == 'first'  # the default
    first = losses_of(head, ground_truth())
    # The second image has no ground truth; mmdet counts it as one positive.
    ratio = (own['num_pos_s1'] + 1) / (own['num_pos'] + 1)
    torch.testing.assert_close(
        first['loss_cls_s1'], own['loss_cls_s1'] * ratio, rtol=1e-4, atol=0
    )
    assert torch.equal(first['loss_bbox_s1'], own['loss_bbox_s1'])


def test_refine_runs_in_float32_under_autocast(monkeypatch):
    head = build_head()
    seen = []

    def spy(coder, boxes, deltas):
        # (Under autocast, a product would come in bfloat16.)
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        seen.append((boxes.dtype, deltas.dtype, product.dtype))
        return decode_boxes(coder, boxes, deltas)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        cls_scores, bbox_preds = head(features())
        assert bbox_preds[0].dtype == torch.bfloat16
        monkeypatch.setattr('mmdet_consistent.heads.anchors.decode_boxes', spy)
        losses = head.loss_by_feat(cls_scores, bbox_preds, ground_truth(), metas())
    assert seen == [(torch.float32, torch.float32, torch.float32)]
    assert all(v.isfinite() for v in as_scalars(losses).values())


def test_non_finite_refined_anchors_are_ignored():
    head = build_head()
    cls_scores, bbox_preds = head(features())
    broken = [p.detach().clone() for p in bbox_preds]
    for value, row in ((float('inf'), 0), (float('nan'), 1), (3e38, 2)):
        broken[0][:, :4, row] = value
    broken = [p.requires_grad_() for p in broken]
    losses = head.loss_by_feat(cls_scores, broken, ground_truth(), metas())
    for key in ('loss_cls_s1', 'loss_bbox_s1'):
        assert sum(losses[key]).isfinite(), key


def test_stage_assigners_accept_mmdets_max_iou_assigner():
    assigner = dict(
        type='MaxIoUAssigner', match_low_quality=False, pos_iou_thr=0.6, neg_iou_thr=0.5
    )
    plain = losses_of(build_head(), ground_truth())
    ours = losses_of(build_head(stage_assigners=[assigner]), ground_truth())
    for key, value in plain.items():
        torch.testing.assert_close(ours[key], value, msg=key)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            dict(label_stages=4, reg_stages=2),
            (
                'label_stages=4 needs the boxes of 3 regression stages',
                'but reg_stages=2: set reg_stages to at least 3, '
                'or label_stages to at most 3',
            ),
        ),
        (dict(label_stages=0), ('^label_stages must be', 'got 0;')),
        (dict(reg_stages=1.5), ('^reg_stages must be', 'got 1.5;')),
        (dict(stage_loss_weights=(1,)), ('stage_loss_weights', 'label_stages=2')),
        (dict(stage_loss_weights=(0, 0)), ('stage_loss_weights', 'all 0')),
        (dict(stage_loss_weights=(1, -1)), ('stage_loss_weights', '-1')),
        (dict(stage_loss_weights=(1, float('nan'))), ('stage_loss_weights', 'nan')),
        (dict(cls_normalizer='both'), ('cls_normalizer', 'both')),
        (dict(stage_loss_weights='ab'), ('stage_loss_weights', 'ab')),
        (dict(stage_loss_weights=2.0), ('stage_loss_weights', '2.0')),
        (dict(stage_assigners='SecondPassAssigner'), ('stage_assigners', 'dict(type=')),
        (dict(stage_assigners=[1]), ('^stage_assigners must', '[1]')),
        (dict(stage_assigners=dict(pos_iou_thr=0.6)), ('stage_assigners', 'type')),
        (dict(stage_bbox_coders=5), ('^stage_bbox_coders must', '5')),
        (
            dict(
                stage_bbox_coders=dict(
                    type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2]
                )
            ),
            ('stage 1', 'target_stds', '(0.1, 0.1, 0.2)'),
        ),
        (
            dict(stage_assigners=[dict(type='SecondPassAssigner')] * 2),
            ('stage_assigners', '2 entries'),
        ),
        (
            dict(stage_bbox_coders=[dict(type='DeltaXYWHBBoxCoder')] * 3),
            ('stage_bbox_coders', '3 entries'),
        ),
    ],
)
def test_invalid_options_are_refused_with_field_and_value(options, words):
    assert_refused(words, build_head, **options)


def test_single_regression_keeps_base_coder_and_convolution():
    head = build_head(reg_stages=1)
    assert type(head.bbox_coder) is DeltaXYWHBBoxCoder
    assert type(head.retina_reg) is torch.nn.Conv2d


def mmdet_retinanet_configs():
    folder = Path(mmdet.__file__).parent / '.mim/configs/retinanet'
    return sorted(p.stem for p in folder.glob('*.py') if p.stem != 'retinanet_tta')


@pytest.mark.parametrize('name', mmdet_retinanet_configs())
def test_every_retinanet_config_of_mmdet_trains_with_the_head(name):
    config = get_config(f'mmdet::retinanet/{name}.py').model
    head = dict(config.bbox_head, type='ConsistentRetinaHead', in_channels=16)
    head.update(feat_channels=16, train_cfg=config.train_cfg, test_cfg=config.test_cfg)
    built = MODELS.build(head)
    built.init_weights()
    levels = [torch.randn(1, 16, size, size) for size in (16, 8, 4, 2, 1)]
    gts = [instances([[8, 8, 70, 90], [40, 30, 110, 100]], [3, 77])]
    losses = as_scalars(built.loss_by_feat(*built(levels), gts, metas(1)))
    assert losses['num_pos_s1'] > 0
    total_loss(losses).backward()
    assert built.retina_reg.later_stages[0].bias.grad.abs().sum() > 0
    later = sum(p.numel() for p in built.retina_reg.later_stages.parameters())
    assert later == built.retina_reg.weight.numel() + built.retina_reg.bias.numel()


def test_subclass_with_own_get_targets_computes_stage_0_itself():
    class Picky(ConsistentRetinaHead):
        def get_targets(self, *args, **kwargs):
            targets = super().get_targets(*args, **kwargs)
            self.calls = True
            return targets

    head = MODELS.build(ConfigDict(type=Picky, **HEAD))
    assert head.first_stage.is_fused is False
    losses_of(head, ground_truth())
    assert head.calls
