"""Deformable convolution and deformable attention."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mmdet_consistent.ops import deform
from tests.support.operators import (
    assert_equal,
    compiled,
    convolution,
    normal,
    ours,
    run_deform_conv,
    run_modulated,
    use_operators,
)

needs_compiled = pytest.mark.skipif(
    compiled is None, reason='mmcv is installed without compiled operators'
)


@needs_compiled
@pytest.mark.parametrize('run', [run_deform_conv, run_modulated])
@given(st.integers(0, 2**16), st.sampled_from(('', 'zero_offsets', 'whole_offsets')))
def test_deformable_convolution_equals_compiled_mmcvs(run, seed, kind):
    """Also where derivatives jump: at pixels' centres, where training begins."""
    case = convolution(np.random.RandomState(seed), **({kind: True} if kind else {}))
    assert_equal(run(ours, *case), run(compiled, *case))


def test_convolution_without_offsets_is_a_convolution():
    rng = np.random.RandomState(0)
    input, weight = normal(rng, 2, 4, 6, 7), normal(rng, 6, 4, 3, 3)
    offset = input.new_zeros(2, 18, 6, 7)
    shape = deform.Shape((1, 1), (1, 1), (1, 1), 1, 1)
    found = deform._convolve(input, offset, None, weight, shape)
    expected = torch.nn.functional.conv2d(input, weight, padding=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture
def attention(monkeypatch):
    """mmcv's operator for GPUs, by ours; and mmcv's version in PyTorch."""
    use_operators(monkeypatch, ours)
    from mmcv.ops import multi_scale_deform_attn as module

    return (
        lambda *args: module.MultiScaleDeformableAttnFunction.apply(*args, 64),
        module.multi_scale_deformable_attn_pytorch,
    )


@pytest.fixture
def attended():
    """Two levels, and samples of which some lie outside."""
    rng = np.random.RandomState(0)
    shapes, start = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
    value = normal(rng, 2, 26, 2, 3).double().requires_grad_()
    locations = torch.from_numpy(rng.rand(2, 3, 2, 2, 2, 2) * 1.4 - 0.2)
    weights = torch.from_numpy(rng.rand(2, 3, 2, 2, 2))
    return value, shapes, start, locations.requires_grad_(), weights.requires_grad_()


def test_attention_equals_mmcvs_version_in_pytorch(attention, attended):
    operator, reference = attention
    value, shapes, _, locations, weights = attended
    found = operator(*attended)
    expected = reference(value, shapes, locations, weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    leaves = (value, locations, weights)
    seed = torch.randn_like(found)
    for grad, wanted in zip(
        torch.autograd.grad(found, leaves, seed),
        torch.autograd.grad(expected, leaves, seed),
    ):
        torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-12)


def test_attention_has_the_gradients_of_finite_differences(attention, attended):
    value, shapes, start, locations, weights = attended
    assert gradcheck(
        lambda v, at, w: attention[0](v, shapes, start, at, w),
        (value, locations, weights),
    )


def test_attention_computes_in_float32_for_half_precision(attention, attended):
    value, shapes, start, locations, weights = (x.detach() for x in attended)
    half = [x.half() for x in (value, locations, weights)]
    found = attention[0](half[0], shapes, start, *half[1:])
    exact = attention[0](
        half[0].double(), shapes, start, *(x.double() for x in half[1:])
    )
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-5)
