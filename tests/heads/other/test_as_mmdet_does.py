"""Where a consistent head is used like its base head, it behaves like it."""

import copy
import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models import losses as mmdet_losses
from mmdet.models.task_modules import assigners
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_consistent.heads import ground_truth_area
from tests.support import other_heads
from tests.support.builders import (
    assert_refused,
    build_head,
    features,
    instances,
    losses_of,
    metas,
)

register_all_modules()
HEADS = list(other_heads.CONFIGS)
FLAT = [[10.0, 10, 10, 40], [200.0, 30, 260, 30], [50.0, 50, 50, 50]]


@pytest.mark.parametrize('name', HEADS)
def test_losses_are_lists_where_the_base_head_returns_lists(name):
    base = other_heads.build(other_heads.small_config(name))
    head = other_heads.build_consistent(name)
    forms = []
    for each in (base, head):
        outputs = each(other_heads.features(each))
        gts = copy.deepcopy(other_heads.two_boxes())
        losses = each.loss_by_feat(*outputs, gts, other_heads.metas(), None)
        forms.append({k: isinstance(v, list) for k, v in losses.items() if 'loss' in k})
    expected, actual = forms
    later = {k: v for k, v in actual.items() if k not in expected}
    assert {k: actual[k] for k in expected} == expected
    assert later
    assert set(later.values()) == {any(expected.values())}


@pytest.mark.parametrize('name', HEADS)
def test_building_draws_no_more_random_numbers_than_the_base_head(name):
    drawn = []
    for kind in (name, f'Consistent{name}'):
        config = dict(other_heads.small_config(name), type=kind)
        torch.manual_seed(0)
        MODELS.build(ConfigDict(copy.deepcopy(config)))
        drawn.append(torch.rand(()))
    assert drawn[0] == drawn[1]


IOU_LOSSES = [name for name in vars(mmdet_losses) if name.endswith('IoULoss')]


@pytest.mark.parametrize('loss', IOU_LOSSES)
def test_iou_loss_on_deltas_is_refused(loss):
    options = dict(loss_bbox=dict(type=loss, loss_weight=1.0))
    words = ['loss_bbox', loss, 'reg_decoded_bbox=True']
    assert_refused(words, build_head, **options)
    decoded = losses_of(build_head(reg_decoded_bbox=True, **options))
    assert all(value >= 0 for value in decoded.values())


@pytest.mark.parametrize('name', HEADS)
def test_iou_loss_is_refused_where_the_base_head_would_give_it_deltas(name):
    config = other_heads.small_config(name)
    if 'SSD' in name:
        return  # its loss is a function
    config['loss_bbox'] = dict(type='GIoULoss')  # not merged
    config['type'] = f'Consistent{name}'
    config.pop('reg_decoded_bbox', None)
    if name in ('ATSSHead', 'PAAHead', 'DDODHead', 'GFLHead', 'YOLOFHead'):
        other_heads.build(config)
        return
    assert_refused(['loss_bbox', 'GIoULoss'], other_heads.build, config=config)
    other_heads.build(dict(config, reg_decoded_bbox=True))


OPTIONS = dict(
    ATSSAssigner=dict(topk=9),
    ApproxMaxIoUAssigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.4),
    CenterRegionAssigner=dict(pos_scale=0.2, neg_scale=0.2, min_pos_iof=0.01),
    DynamicSoftLabelAssigner=dict(topk=13),
    GridAssigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.4),
    HungarianAssigner=dict(match_costs=[dict(type='BBoxL1Cost', weight=5.0)]),
    MaxIoUAssigner=dict(pos_iou_thr=0.6, neg_iou_thr=0.5),
    MultiInstanceAssigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.4),
    PointAssigner=dict(),
    RegionAssigner=dict(),
    SimOTAAssigner=dict(center_radius=2.5),
    TaskAlignedAssigner=dict(topk=13),
    TopkHungarianAssigner=dict(topk=13),
    UniformAssigner=dict(pos_ignore_thr=0.15, neg_ignore_thr=0.7),
)


@pytest.mark.parametrize('name', [n for n in vars(assigners) if n.endswith('Assigner')])
def test_assigner_works_or_is_refused_when_it_is_built(name):
    if name == 'BaseAssigner':
        return
    config = dict(OPTIONS[name], type=name)
    if name in ('MaxIoUAssigner', 'CenterRegionAssigner'):
        losses = losses_of(build_head(stage_assigners=config))
        assert all(map(math.isfinite, losses.values()))
    else:
        words = ['stage_assigners', name, 'SecondPassAssigner']
        assert_refused(words, build_head, stage_assigners=config)


def test_free_anchor_trains_without_train_cfg_as_mmdets_does():
    options = dict(train_cfg=None)
    gts = other_heads.two_boxes()
    base = other_heads.build(
        dict(other_heads.small_config('FreeAnchorRetinaHead'), **options)
    )
    head = other_heads.build_consistent('FreeAnchorRetinaHead', **options)
    expected = other_heads.losses_of(base, gts)
    actual = other_heads.losses_of(head, gts)
    assert {'loss_cls_s1', 'loss_bbox_s1'} < set(actual)
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value)


def test_loss_without_train_cfg_says_what_is_missing():
    head = other_heads.build_consistent('ATSSHead', train_cfg=None)
    with pytest.raises(ValueError, match='ConsistentATSSHead was built without train_'):
        other_heads.losses_of(head, other_heads.two_boxes())


@pytest.mark.parametrize('name', ['PAAHead', 'RetinaHead', 'GFLHead'])
def test_outputs_of_the_base_head_are_refused_with_their_channels(name):
    base = other_heads.build(other_heads.small_config(name))
    head = other_heads.build_consistent(name)
    outputs = base(other_heads.features(base))
    channels = outputs[1][0].shape[1]
    with pytest.raises(ValueError, match=f'level 0 has {channels} channels, but Cons'):
        head.loss_by_feat(*outputs, other_heads.two_boxes(), other_heads.metas())


@pytest.mark.parametrize('name', ['RetinaHead', 'SSDHead', 'ATSSHead', 'PAAHead'])
def test_predict_by_feat_takes_arguments_by_position_as_mmdets(name):
    head = other_heads.build_consistent(name).eval()
    with torch.no_grad():
        outputs = head(other_heads.features(head))
    outputs = [*outputs, *[None] * (3 - len(outputs))]
    by_name = head.predict_by_feat(*outputs, batch_img_metas=other_heads.metas())
    by_place = head.predict_by_feat(
        *outputs, other_heads.metas(), head.test_cfg, False, True
    )
    for one, other in zip(by_name, by_place):
        torch.testing.assert_close(one.bboxes, other.bboxes)


CHANGES = [
    ('loss_cls', dict(type='GHMC', bins=5, use_sigmoid=True)),
    ('loss_cls', dict(type='FocalLoss', use_sigmoid=True, reduction='none')),
    ('loss_cls', dict(type='FocalLoss', use_sigmoid=True)),
    ('loss_bbox', dict(type='GHMR', mu=0.02, bins=5)),
    ('loss_bbox', dict(type='L1Loss')),
]


@pytest.mark.parametrize('copied', [False, True])
@pytest.mark.parametrize(('part', 'config'), CHANGES)
def test_changed_loss_weight_reaches_all_stages(part, config, copied):
    head, doubled = (build_head(**{part: config}) for _ in range(2))
    doubled = copy.deepcopy(doubled) if copied else doubled
    getattr(doubled, part).loss_weight *= 2
    if config.get('reduction') == 'none':  # mmdet's own stage 0 does not reduce
        return
    expected, actual = losses_of(head), losses_of(doubled)
    for name in (part, f'{part}_s1'):
        torch.testing.assert_close(actual[name], 2 * expected[name])


@pytest.mark.parametrize('name', [n for n in HEADS if n != 'YOLACTHead'])
def test_ground_truths_without_area_change_no_loss(name):
    head = other_heads.build_consistent(name)
    if name != 'FreeAnchorRetinaHead':
        head.eval()  # the same batch statistics twice
    good = other_heads.two_boxes()
    both = [
        InstanceData(
            bboxes=torch.cat([gt.bboxes, torch.tensor(FLAT)]),
            labels=torch.cat([gt.labels, gt.labels.new_zeros(len(FLAT))]),
        )
        for gt in good
    ]
    expected, actual = (other_heads.losses_of(head, gts) for gts in (good, both))
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, msg=key)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(FLAT), max_size=3),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(['MaxIoUAssigner', 'CenterRegionAssigner']),
)
def test_retina_matches_no_box_without_area(flat, place, select, assigner):
    head = build_head(stage_assigners=dict(OPTIONS[assigner], type=assigner))
    head.select_rows = select
    good = [[30.0, 30, 55, 55], [10.0, 10, 100, 110]]
    both = good[:place] + flat + good[place:]
    labels = [0] * place + [2] * len(flat) + [0] * (2 - place)
    expected, actual = (
        head.loss_by_feat(*head(features(1)), [instances(*gts)], metas(1))
        for gts in ((good, [0, 0]), (both, labels))
    )
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, msg=key)


def test_ground_truths_without_area_are_reported_once(monkeypatch):
    said = []
    monkeypatch.setattr(ground_truth_area, 'print_log', lambda t, **kw: said.append(kw))
    ground_truth_area.say_once.cache_clear()
    head = build_head()
    for boxes in ([[5.0, 5, 50, 50]], FLAT, FLAT):
        gts = [instances(boxes, [0] * len(boxes))]
        head.loss_by_feat(*head(features(1)), gts, metas(1))
    assert [kw['level'] for kw in said] == [logging.WARNING]


def test_boxes_that_are_no_numbers_are_not_hidden():
    gts = instances([[5.0, 5, float('nan'), 50], [5.0, 5, 5, 50]], [0, 1])
    (kept,) = ground_truth_area.with_area([gts])
    assert kept.labels.tolist() == [0]
