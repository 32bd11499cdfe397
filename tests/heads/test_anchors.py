import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags

from mmdet_consistent.heads import make_consistent
from mmdet_consistent.heads.anchors import ShapeCache
from tests.support.builders import build_head, metas
from tests.support.ssd_builders import build_ssd_head

SIZES = [(8, 8), (4, 4), (2, 2)]


def test_shape_cache_keeps_the_results_computed_last():
    cache, computed = ShapeCache(capacity=2), []

    def get(key):
        return cache.get(key, lambda: computed.append(key) or key)

    assert [get(key) for key in 'abab'] == ['a', 'b', 'a', 'b']
    get('c')
    get('b')
    assert computed == ['a', 'b', 'c']
    get('a')  # used before b was used again
    assert computed == ['a', 'b', 'c', 'a']
    get('b')
    assert computed == ['a', 'b', 'c', 'a']


def test_shape_cache_copies_start_empty():
    cache = ShapeCache(capacity=3)
    cache.get('a', lambda: 1)
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.capacity == 3
        assert other.get('a', lambda: 2) == 2


def test_get_anchors_generates_anchors_once_for_differently_padded_images():
    head, calls = build_head(), []
    generate = head.prior_generator.grid_priors

    def count(*args, **kwargs):
        calls.append(args)
        return generate(*args, **kwargs)

    head.prior_generator.grid_priors = count
    for shapes in ([(128, 128), (64, 128)], [(64, 128), (96, 128)]):
        img_metas = [dict(meta, pad_shape=s) for meta, s in zip(metas(), shapes)]
        head.get_anchors(SIZES, img_metas, device='cpu')
    assert len(calls) == 1


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


def test_get_anchors_equals_the_base_head_and_reuses_its_tensors():
    head, base = build_head(), build_head('RetinaHead')
    first = head.get_anchors(SIZES, metas(), device='cpu')
    again = head.get_anchors(SIZES, metas(), device='cpu')
    assert all(a is b for a, b in zip(first[0][0], again[0][0]))
    smaller = metas()
    smaller[1]['pad_shape'] = (64, 128)
    for img_metas in (metas(), smaller):
        actual = head.get_anchors(SIZES, img_metas, device='cpu')
        expected = base.get_anchors(SIZES, img_metas, device='cpu')
        for ours, theirs in zip(actual, expected):
            for image_ours, image_theirs in zip(ours, theirs):
                for a, b in zip(image_ours, image_theirs):
                    assert torch.equal(a, b)


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
