from contextlib import contextmanager

import mmdet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import MaxIoUAssigner
from mmengine.structures import InstanceData
from mmengine.utils import digit_version
from torch.nn.utils.rnn import pad_sequence

from mmdet_consistent.task_modules import (
    MatchRule,
    block_search,
    dense_search,
    match_max_iou,
    max_iou,
    rule_of,
)
from tests.reference import consistent as reference
from tests.support.builders import instances
from tests.support.strategies import boxes as boxes_of_sides

BOX = boxes_of_sides(1, 50, corner=60)
BOXES = st.lists(BOX, max_size=12)
IMAGES = st.lists(st.tuples(BOXES, st.lists(BOX, max_size=3)), min_size=1, max_size=3)
PRIORS = st.lists(BOX, min_size=1, max_size=15)


def padded(boxes):
    tensors = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in boxes]
    return pad_sequence(tensors, batch_first=True), torch.tensor(
        [len(b) for b in boxes]
    )


@contextmanager
def in_blocks_of(pairs):
    """Search in small blocks, so that a few boxes make several of them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (max_iou, block_search, dense_search):
            patch.setattr(module, 'BLOCK', pairs)
        patch.setattr(block_search, 'GROUP', 2)
        patch.setattr(block_search, 'STRIP', 4)
        yield


@settings(max_examples=80, deadline=None)
@given(
    images=IMAGES,
    priors=PRIORS,
    outside=st.lists(st.booleans(), min_size=15, max_size=15),
    block=st.sampled_from([1, 20, 2**16]),
    gpu_way=st.booleans(),
)
def test_match_max_iou_equals_the_naive_reference(
    images, priors, outside, block, gpu_way
):
    boxes = torch.tensor(priors, dtype=torch.float32)[None]
    gts, counts = padded([g for g, _ in images])
    ignores, _ = padded([i for _, i in images])
    valid = ~torch.tensor(outside[: len(priors)]).expand(len(images), -1)
    rule = MatchRule(0.55, 0.35, ignore_iof_thr=0.3)
    with in_blocks_of(block):
        gt_inds, _ = match_max_iou(
            boxes, gts, counts, rule, valid, ignores, not gpu_way
        )
    for row, (gt, ignore) in zip(gt_inds.tolist(), images):
        expected = reference.assign(priors, gt, ignore, 0.55, 0.35, 0.3)
        assert row == [-1 if o else e for o, e in zip(outside, expected)]


@settings(max_examples=150, deadline=None)
@given(
    images=IMAGES,
    priors=PRIORS,
    outside=st.lists(st.booleans(), min_size=15, max_size=15),
    min_pos_iou=st.sampled_from([0.0, 0.2]),
    gt_max_assign_all=st.booleans(),
    iof=st.sampled_from([-1, 0.4]),
    wrt=st.booleans(),
    block=st.sampled_from([1, 20, 2**16]),
    gpu_way=st.booleans(),
)
def test_match_max_iou_equals_mmdets_assigner_bit_for_bit(
    images, priors, outside, min_pos_iou, gt_max_assign_all, iof, wrt, block, gpu_way
):
    assigner = MaxIoUAssigner(
        pos_iou_thr=0.5,
        neg_iou_thr=0.4,
        min_pos_iou=min_pos_iou,
        gt_max_assign_all=gt_max_assign_all,
        ignore_iof_thr=iof,
        ignore_wrt_candidates=wrt,
    )
    boxes = torch.tensor(priors, dtype=torch.float32)
    gts, counts = padded([g for g, _ in images])
    ignores, _ = padded([i for _, i in images])
    inside = ~torch.tensor(outside[: len(priors)])
    valid = inside.expand(len(images), -1)
    with in_blocks_of(block):
        gt_inds, best = match_max_iou(
            boxes[None], gts, counts, rule_of(assigner), valid, ignores, not gpu_way
        )
    for image, (gt, ignore) in enumerate(images):
        expected = assigner.assign(
            InstanceData(priors=boxes[inside]),
            instances(gt, [0] * len(gt)),
            instances(ignore, [0] * len(ignore)),
        )
        assert torch.equal(gt_inds[image][inside], expected.gt_inds)
        assert torch.equal(best[image][inside], expected.max_overlaps)
        assert (gt_inds[image][~inside] == -1).all()


@pytest.mark.parametrize(
    'options',
    [
        dict(neg_iou_thr=(0.1, 0.4)),
        dict(iou_calculator=dict(type='BboxOverlaps2D', dtype='fp16')),
        pytest.param(
            dict(perm_repeat_gt_cfg=dict(iou_thr=0.7)),
            marks=pytest.mark.skipif(
                digit_version(mmdet.__version__) < digit_version('3.2'),
                reason='mmdet < 3.2 has no perm_repeat_gt_cfg',
            ),
        ),
    ],
)
def test_rule_of_other_options_is_none(options):
    assert (
        rule_of(
            MaxIoUAssigner(**dict(dict(pos_iou_thr=0.5, neg_iou_thr=0.4), **options))
        )
        is None
    )


def test_rule_of_max_iou_assigners_has_their_options():
    assert rule_of(MaxIoUAssigner(0.0, 0.0)) == MatchRule(0.0, 0.0, True)
    older = MaxIoUAssigner(0.5, 0.4)  # mmdet before 3.2
    vars(older).pop('perm_repeat_gt_cfg', None)
    assert rule_of(older) == MatchRule(0.5, 0.4, True)


@pytest.mark.parametrize('options', [dict(min_pos_iou=-0.1), dict(pos_iou_thr=-0.1)])
def test_rule_of_negative_thresholds_is_none(options):
    options = dict(dict(pos_iou_thr=0.5, neg_iou_thr=0.4), **options)
    assert rule_of(MaxIoUAssigner(**options)) is None


@pytest.mark.parametrize('iof', [0.0, 0.5, 0.25])
def test_ignore_overlap_at_the_threshold_is_not_ignored(iof):
    """Not yet ignored; and a threshold of 0 is no rule."""
    options = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, ignore_iof_thr=iof)
    boxes = torch.tensor([[0.0, 0, 10, 10], [40, 40, 60, 60]])
    gt, region = [[40.0, 40, 60, 60]], [[5.0, 0, 20, 10]]
    expected = MaxIoUAssigner(**options).assign(
        InstanceData(priors=boxes), instances(gt, [0]), instances(region, [0])
    )
    gt_inds, _ = match_max_iou(
        boxes[None],
        torch.tensor([gt]),
        torch.tensor([1]),
        MatchRule(**options),
        ignore_bboxes=torch.tensor([region]),
    )
    assert gt_inds[0].tolist() == expected.gt_inds.tolist()
    assert gt_inds[0, 0] == (-1 if iof == 0.25 else 0)


def match_one(box, gts, rule, select_rows=None):
    boxes, gt_bboxes = torch.tensor([[box]]), torch.tensor([gts])
    counts = torch.tensor([len(gts)])
    gt_inds, _ = match_max_iou(boxes, gt_bboxes, counts, rule, select_rows=select_rows)
    return gt_inds.item()


def test_iou_at_the_threshold_is_positive():
    box, gts = [0.0, 0, 10, 10], [[0.0, 0, 10, 20]]  # 0.5
    assert match_one(box, gts, MatchRule(0.5, 0.5)) == 1
    assert match_one(box, gts, MatchRule(0.6, 0.5)) == -1
    assert match_one(box, gts, MatchRule(0.6, 0.51)) == 0


@pytest.mark.parametrize('gpu_way', [False, True])
def test_first_of_equal_ground_truths_wins_across_blocks(monkeypatch, gpu_way):
    monkeypatch.setattr(dense_search, 'BLOCK', 1)
    far, here = [90.0, 90, 99, 99], [0.0, 0, 10, 10]
    gts = [far] * 3 + [here] + [far] * 11 + [here] * 2
    assert match_one([0.0, 0, 10, 9], gts, MatchRule(0.6, 0.5), not gpu_way) == 4
    # Of those that take a box as their best, mmdet has the last.
    low = MatchRule(0.95, 0.5, match_low_quality=True)
    assert match_one([0.0, 0, 10, 9], gts, low, not gpu_way) == 17


def test_low_quality_match_skips_boxes_in_ignore_regions():
    gt = [10.0, 10, 30, 30]
    rule = MatchRule(0.5, 0.4, match_low_quality=True, ignore_iof_thr=0.5)
    gt_inds, best = match_max_iou(
        torch.tensor([[gt, [60.0, 60, 80, 80]]]),
        torch.tensor([[gt]]),
        torch.tensor([1]),
        rule,
        ignore_bboxes=torch.tensor([[[50.0, 50, 90, 90]]]),
    )
    assert gt_inds.tolist() == [[1, -1]]  # also where the best IoU there is is 1
    assert best.tolist() == [[1, -1]]


@pytest.mark.parametrize('num_boxes', [block_search.STRIP, block_search.STRIP + 1])
def test_search_blocks_leaves_excluded_boxes_as_they_are(num_boxes):
    boxes = torch.tensor([[[0.0, 0, 8, 8]]]).repeat(1, num_boxes, 1)
    before = boxes.clone()
    excluded = torch.zeros(2, num_boxes, dtype=torch.bool)
    excluded[0, 1:] = True
    gts = boxes[:, :1].repeat(2, 1, 1)
    rule = MatchRule(pos_iou_thr=0.5, neg_iou_thr=0.4)
    inds, best = block_search.search_blocks(
        boxes, gts, torch.tensor([1, 1]), rule, excluded
    )
    assert torch.equal(boxes, before)
    assert inds[0].tolist() == [1] + [-1] * (num_boxes - 1)
    assert bool((inds[1] == 1).all())
    assert bool((best[1] == 1).all())
