"""RoIAlign, RoI pooling and deformable RoI pooling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mmdet_consistent.ops import bins, roi_pool
from tests.support.operators import (
    assert_equal,
    compiled,
    normal,
    ours,
    random_rois,
    run_roi_align,
    use_operators,
)

needs_compiled = pytest.mark.skipif(
    compiled is None, reason='mmcv is installed without compiled operators'
)
# mmcv compiles the two pools for GPUs only: its tests have these maps, with the values
# and gradients (of the sum of the output) that a GPU gave. Pooled to 2 × 2.
SQUARE = [[1.0, 2.0], [3.0, 4.0]]
TURNED = [[4.0, 3.0], [2.0, 1.0]]
LARGE = [[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16.0]]
MAPS = [[SQUARE], [SQUARE, TURNED], [LARGE]]
POOLED = [
    ([SQUARE], [[[1, 1], [1, 1]]]),
    ([SQUARE, TURNED], [[[1, 1], [1, 1]]] * 2),
    (
        [[[4, 8], [12, 16]]],
        [[[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]],
    ),
]
_CORNER = [[3.0625, 0.4375], [0.4375, 0.0625]]
DEFORM_POOLED = [
    ([[[1, 1.25], [1.5, 1.75]]], [_CORNER]),
    ([[[1, 1.25], [1.5, 1.75]], [[4, 3.75], [3.5, 3.25]]], [_CORNER] * 2),
    (
        [[[1.9375, 4.75], [7.5625, 10.375]]],
        [
            [
                [0.47265625, 0.4296875, 0.4296875, 0.04296875],
                [0.4296875, 0.390625, 0.390625, 0.0390625],
                [0.4296875, 0.390625, 0.390625, 0.0390625],
                [0.04296875, 0.0390625, 0.0390625, 0.00390625],
            ]
        ],
    ),
]


@pytest.fixture
def mmcv_ops(monkeypatch):
    use_operators(monkeypatch, ours)
    import mmcv.ops

    return mmcv.ops


@st.composite
def roi_cases(draw):
    rng = np.random.RandomState(draw(st.integers(0, 2**16)))
    num, size = draw(st.integers(0, 5)), draw(st.tuples(*[st.integers(1, 9)] * 2))
    features, rois = normal(rng, 2, 3, *size), random_rois(rng, num, 2)
    if draw(st.booleans()):  # samples of equal values, and at pixels' centres
        features, rois = features.round(), rois.round()
    return features, rois, normal(rng, num, 3, 2, 3)


@needs_compiled
@given(
    roi_cases(),
    st.sampled_from((0, 1)),
    st.sampled_from((0, 1, 2, 3)),
    st.booleans(),
)
def test_roi_align_equals_compiled_mmcvs(case, mode, ratio, aligned):
    options = dict(pool_mode=mode, sampling_ratio=ratio, aligned=aligned)
    expected = run_roi_align(compiled, *case, **options)
    assert_equal(run_roi_align(ours, *case, **options), expected)


def test_roi_align_in_parts_equals_the_whole(monkeypatch):
    rng = np.random.RandomState(0)
    case = normal(rng, 2, 3, 9, 9), random_rois(rng, 20, 2), normal(rng, 20, 3, 2, 3)
    options = dict(pool_mode=1, sampling_ratio=0, aligned=True)
    whole = run_roi_align(ours, *case, **options)
    monkeypatch.setattr(bins, 'MAX_ENTRIES', 1)
    assert_equal(run_roi_align(ours, *case, **options), whole)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_align_adds_up_in_float32(dtype):
    rng = np.random.RandomState(0)
    case = normal(rng, 2, 3, 9, 9), random_rois(rng, 5, 2), normal(rng, 5, 3, 2, 3)
    options = dict(pool_mode=1, sampling_ratio=2, aligned=True)
    narrow = [tensor.to(dtype) for tensor in case]
    pooled = run_roi_align(ours, *narrow, **options)[0]
    exact = run_roi_align(ours, *(x.float() for x in narrow), **options)[0]
    assert torch.equal(pooled, exact.to(dtype))


@pytest.mark.parametrize('aligned', [True, False])
def test_empty_roi_is_zero_and_has_no_gradient(aligned):
    features = torch.ones(1, 1, 5, 5)
    rois = torch.tensor([[0, 8.0, 8, 8, 8], [0, 16, 16, 4, 4]])
    options = dict(pool_mode=1, sampling_ratio=0, aligned=aligned)
    found = run_roi_align(ours, features, rois, torch.ones(2, 1, 2, 3), **options)
    if aligned:
        assert not found[0].any()
        assert not found[3].any()
    else:  # at least a pixel wide, for compatibility
        assert (found[0] == 1).all()


@pytest.mark.parametrize('number', range(3))
def test_roi_pool_gives_the_values_in_mmcvs_tests(mmcv_ops, number):
    features = torch.tensor([MAPS[number]], requires_grad=True)
    side = features.shape[-1] - 1.0
    pooled = mmcv_ops.roi_pool(features, torch.tensor([[0, 0, 0, side, side]]), (2, 2))
    pooled.sum().backward()
    values, grads = POOLED[number]
    assert pooled.tolist() == [values]
    assert features.grad.tolist() == [grads]


@pytest.mark.parametrize('number', range(3))
def test_deform_roi_pool_gives_the_values_in_mmcvs_tests(mmcv_ops, number):
    features = torch.tensor([MAPS[number]], requires_grad=True)
    side = features.shape[-1] - 1.0
    rois = torch.tensor([[0, 0, 0, side, side]])
    pool = mmcv_ops.DeformRoIPoolPack((2, 2), features.shape[1], sampling_ratio=2)
    pooled = pool(features, rois)
    pooled.sum().backward()
    values, grads = DEFORM_POOLED[number]
    assert pooled.tolist() == [values]
    assert features.grad.tolist() == [grads]


def plain_roi_pool(features, roi, shape, scale):
    """Values and indices of the largest pixel of each bin, by a loop."""
    channels, height, width = features.shape[1:]
    maps = features[int(roi[0])]
    x1, y1 = (roi[1:3] * scale).tolist()
    x2, y2 = ((roi[3:] + 1) * scale).tolist()
    values = torch.zeros(channels, *shape)
    indices = torch.full((channels, *shape), -1)
    for row in range(shape[0]):
        for column in range(shape[1]):
            tall, wide = (y2 - y1) / shape[0], (x2 - x1) / shape[1]
            top, bottom = np.floor(row * tall + y1), np.ceil((row + 1) * tall + y1)
            left, right = (
                np.floor(column * wide + x1),
                np.ceil((column + 1) * wide + x1),
            )
            top, bottom = (int(min(max(v, 0), height)) for v in (top, bottom))
            left, right = (int(min(max(v, 0), width)) for v in (left, right))
            if bottom <= top or right <= left:
                continue
            part = maps[:, top:bottom, left:right].flatten(1)
            at = part.argmax(1)
            values[:, row, column] = part.amax(1)
            down, across = at // (right - left), at % (right - left)
            indices[:, row, column] = (top + down) * width + left + across
    return values, indices


@pytest.mark.parametrize('entries', [1 << 22, 30])
@given(case=roi_cases())
def test_roi_pool_finds_the_largest_pixel(entries, case):
    features, rois, _ = case
    rois = torch.cat([rois[:, :1], rois[:, 1:].round()], 1)  # bins' edges are exact
    output = features.new_zeros(len(rois), 3, 2, 4)
    argmax = torch.zeros(output.shape, dtype=torch.int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roi_pool, 'MAX_ENTRIES', entries)
        ours.roi_pool_forward(features, rois, output, argmax, 2, 4, 0.25)
    for roi, values, indices in zip(rois, output, argmax):
        expected = plain_roi_pool(features, roi, (2, 4), 0.25)
        assert torch.equal(values, expected[0])
        assert torch.equal(indices.long(), expected[1])


def test_roi_pools_have_the_gradients_of_finite_differences(mmcv_ops):
    rng = np.random.RandomState(0)
    features = normal(rng, 2, 3, 6, 7).double().requires_grad_()
    rois = torch.tensor([[0, 1, 1, 4.3, 5.2], [1, 2, 2.2, 5, 4]]).double()
    shifts = (normal(rng, 2, 2, 2, 3).double() * 0.1).requires_grad_()
    assert gradcheck(lambda x: mmcv_ops.roi_pool(x, rois, (2, 3), 1.0), (features,))
    assert gradcheck(
        lambda x, s: mmcv_ops.deform_roi_pool(x, rois, s, (2, 3), 1.0, 0, 0.5),
        (features, shifts),
    )
