import copy
import pickle
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags

from mmdet_consistent.heads import make_consistent
from mmdet_consistent.heads.anchors import AnchorGrids
from tests.support.builders import build_head, metas
from tests.support.ssd_builders import build_ssd_head

SIZES = [(8, 8), (4, 4), (2, 2)]


def count_grids(head):
    """Count how often a head's anchors are generated."""
    calls, generate = [], head.prior_generator.grid_priors

    def counted(*args, **kwargs):
        calls.append(args)
        return generate(*args, **kwargs)

    head.prior_generator.grid_priors = counted
    return calls


@settings(max_examples=40, deadline=None)
@given(
    maps=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1),
    build=st.sampled_from([build_head, build_ssd_head]),
)
def test_get_anchors_of_any_sequence_of_sizes_equals_the_base_head(maps, build):
    head = build()
    count = head.prior_generator.num_levels
    for height, width in maps:
        sizes = [(height + i % 2, width) for i in range(count)]
        img_metas = [dict(pad_shape=(40, 70)), dict(pad_shape=(150, 90))]
        actual = head.get_anchors(sizes, img_metas, device='cpu')
        expected = AnchorHead.get_anchors(head, sizes, img_metas, device='cpu')
        for ours, theirs in zip(actual, expected):
            for image_ours, image_theirs in zip(ours, theirs):
                for a, b in zip(image_ours, image_theirs):
                    assert torch.equal(a, b)


def test_get_anchors_generates_anchors_only_for_maps_larger_than_before():
    head = build_head()
    calls = count_grids(head)
    for shapes in ([(128, 128), (64, 128)], [(64, 128), (96, 128)]):
        img_metas = [dict(meta, pad_shape=s) for meta, s in zip(metas(), shapes)]
        head.get_anchors(SIZES, img_metas, device='cpu')
    assert len(calls) == 1
    for size in ((3, 8), (8, 3), (9, 2), (2, 9), (9, 9)):
        head.get_anchors([size] * 3, metas(), device='cpu')
    # (3, 8) is larger than some level's map; (9, 2) and (2, 9) are higher and wider.
    assert len(calls) == 1 + 4


def test_anchors_of_varied_photos_are_rarely_generated():
    """Photos of varied shapes, resized as for COCO and padded to one size."""
    head, generator = build_head(), random.Random(0)
    calls = count_grids(head)
    common = [(480, 640), (640, 427), (500, 375)]
    for _ in range(500):
        photos = generator.choices(common, k=7)
        photos.append((generator.randint(200, 640), generator.randint(200, 640)))
        scales = [min(1333 / max(sides), 800 / min(sides)) for sides in photos]
        height, width = (
            max(int(sides[axis] * s) for sides, s in zip(photos, scales))
            for axis in (0, 1)
        )
        sizes = [(-(-height // s), -(-width // s)) for s in (16, 32, 64)]
        head.get_anchors(sizes, metas(), device='cpu')
    assert len(calls) <= 0.05 * 500


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_of_a_head_hold_no_anchors(copied):
    grids = AnchorGrids()
    grids.levels(build_head().prior_generator, SIZES, 'cpu')
    assert vars(grids)['_grids']
    assert not vars(copied(grids))['_grids']


@pytest.mark.parametrize('build', [build_head, build_ssd_head])
@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 150)), max_size=4),
    border=st.sampled_from([-1, 0, 200]),
)
def test_prior_anchors_have_the_flags_that_mmdet_gives_them(build, shapes, border):
    head = build(train_cfg=dict(allowed_border=border))
    strides = head.prior_generator.strides
    sizes = [(-(-128 // h), -(-128 // w)) for w, h in strides]
    img_metas = [dict(pad_shape=s, img_shape=s) for s in [(128, 128), *shapes]]
    if border == 0:  # else an image may have no anchor inside it
        img_metas = img_metas[:1]
    scores = [torch.empty(1, 1, *size) for size in sizes]
    boxes, flags = head.prior_anchors(scores, img_metas)
    anchors, levels = AnchorHead.get_anchors(head, sizes, img_metas, device='cpu')
    assert torch.equal(boxes[0], torch.cat(anchors[0]))
    for own, expected, meta in zip(flags, levels, img_metas):
        shape = meta['img_shape']
        inside = anchor_inside_flags(boxes[0], torch.cat(expected), shape, border)
        assert torch.equal(own, inside)


class ShiftedAnchorHead(RetinaHead):
    """A head of a user's that moves its anchors."""

    def get_anchors(self, featmap_sizes, batch_img_metas, device='cuda'):
        anchors, flags = super().get_anchors(featmap_sizes, batch_img_metas, device)
        return [[level + 3 for level in levels] for levels in anchors], flags


def test_prior_anchors_are_those_of_a_base_head_that_makes_its_own():
    head, plain = build_head(make_consistent(ShiftedAnchorHead)), build_head()
    scores = [torch.zeros(2, 6, *size) for size in SIZES]
    shifted, flags = head.prior_anchors(scores, metas())
    boxes, plain_flags = plain.prior_anchors(scores, metas())
    assert torch.equal(shifted, boxes + 3)
    assert torch.equal(flags, plain_flags)


def test_get_anchors_keeps_separate_anchors_per_device():
    head = build_head()
    for device in ('cpu', 'meta', 'cpu'):
        anchors, flags = head.get_anchors(SIZES, metas(), device=device)
        assert {a.device.type for levels in anchors for a in levels} == {device}
        assert {f.device.type for levels in flags for f in levels} == {device}


def test_get_anchors_returns_fresh_lists():
    head = build_head()
    head.get_anchors(SIZES, metas(), device='cpu')[0][1].clear()
    anchors, flags = head.get_anchors(SIZES, metas(), device='cpu')
    assert [len(levels) for levels in (*anchors, *flags)] == [3, 3, 3, 3]


def test_get_anchors_does_not_reuse_inference_tensors_for_training():
    head = build_head()
    with torch.inference_mode():
        head.get_anchors(SIZES, metas(), device='cpu')
    anchors, _ = head.get_anchors(SIZES, metas(), device='cpu')
    assert not anchors[0][0].is_inference()


@pytest.mark.parametrize('border', [0, 1])
def test_prior_anchors_refuses_an_image_without_inside_anchors(border):
    head = build_head(train_cfg=dict(allowed_border=border))
    scores = [torch.zeros(2, 6, *size) for size in SIZES]
    _, valid = head.prior_anchors(scores, metas())
    assert valid.any(dim=1).all()
    assert not valid.all()
    small = metas()
    small[1]['img_shape'] = (20, 20)
    with pytest.raises(ValueError, match=f'allowed_border={border}.*set it to -1'):
        head.prior_anchors(scores, small)


def test_prior_anchors_without_border_are_all_valid():
    small = metas()
    small[1]['img_shape'] = (20, 20)
    scores = [torch.zeros(2, 6, *size) for size in SIZES]
    _, valid = build_head().prior_anchors(scores, small)
    assert valid.all()
