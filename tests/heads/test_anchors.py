import copy
import pickle

import torch

from mmdet_consistent.heads.anchors import Recent
from tests.heads.helpers import build_head, metas

SIZES = [(8, 8), (4, 4), (2, 2)]


def test_the_least_recently_used_goes_first():
    recent, made = Recent(capacity=2), []

    def get(key):
        return recent.get(key, lambda: made.append(key) or key)

    assert [get(k) for k in 'abab'] == ['a', 'b', 'a', 'b']
    get('c')
    get('b')
    assert made == ['a', 'b', 'c']
    get('a')
    assert made == ['a', 'b', 'c', 'a']


def test_copies_start_empty():
    recent = Recent(capacity=3)
    recent.get('a', lambda: 1)
    for other in (copy.deepcopy(recent), pickle.loads(pickle.dumps(recent))):
        assert other.capacity == 3
        assert not other.items


def test_anchors_are_made_once_a_shape_and_equal_the_base_heads():
    head, base = build_head(), build_head('RetinaHead')
    first = head.get_anchors(SIZES, metas(), device='cpu')
    assert head.get_anchors(SIZES, metas(), device='cpu') is first
    smaller = metas()
    smaller[1]['pad_shape'] = (64, 128)
    for img_metas in (metas(), smaller):
        actual = head.get_anchors(SIZES, img_metas, device='cpu')
        expected = base.get_anchors(SIZES, img_metas, device='cpu')
        for ours, theirs in zip(actual, expected):
            for image_ours, image_theirs in zip(ours, theirs):
                for a, b in zip(image_ours, image_theirs):
                    assert torch.equal(a, b)


def test_anchors_made_in_inference_mode_are_not_trained_on():
    head = build_head()
    with torch.inference_mode():
        head.get_anchors(SIZES, metas(), device='cpu')
    anchors, _ = head.get_anchors(SIZES, metas(), device='cpu')
    assert not anchors[0][0].is_inference()
