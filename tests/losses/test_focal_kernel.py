"""The kernels of the focal loss equal the eager code, which equals the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_consistent.losses import focal_losses
from tests.support.kernels import DEVICE, require_triton

require_triton()
from mmdet_consistent.losses.focal_kernel import focal_sums  # noqa: E402  needs Triton


def random_case(seed, shape, sets, dtype=torch.float32, spread=3.0, mean=0.0):
    rows, classes, places = shape
    generator = torch.Generator().manual_seed(seed)
    logits = mean + spread * torch.randn(shape, generator=generator)
    size = (sets, rows, places)
    labels = torch.randint(0, classes + 1, size, generator=generator)
    background = torch.rand(size, generator=generator) < 0.7
    weights = torch.rand(size, generator=generator)
    weights = torch.where(torch.rand(size, generator=generator) < 0.3, 0, weights)
    labels = torch.where(background, classes, labels)
    return logits.to(DEVICE, dtype), labels.to(DEVICE), weights.to(DEVICE)


def both(logits, labels, weights, gamma=2.0, alpha=0.25, scale=1.0):
    """Return losses and gradient of the kernels, and of the eager code in float64."""
    upstream = scale * torch.linspace(0.5, 2, len(labels), device=DEVICE)
    leaf = logits.clone().requires_grad_()
    ours = focal_sums([leaf], [labels], [weights], gamma, alpha)
    (ours * upstream).sum().backward()
    wide = logits.double().requires_grad_()
    eager = focal_losses([wide], [labels], [weights.double()], gamma, alpha)
    (eager * upstream).sum().backward()
    return (ours.detach(), leaf.grad), (eager.detach(), wide.grad)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(0, 150)),
    sets=st.integers(1, 4),
    gamma=st.sampled_from([2.0, 1.5, 0.0]),
    alpha=st.sampled_from([0.25, 0.9]),
    channels_last=st.booleans(),
)
def test_focal_sums_equal_the_eager_losses(
    seed, shape, sets, gamma, alpha, channels_last
):
    logits, labels, weights = random_case(seed, shape, sets)
    if channels_last:
        logits = logits.transpose(1, 2).contiguous().transpose(1, 2)
    (ours, grad), (eager, wide) = both(logits, labels, weights, gamma, alpha)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), eager, rtol=1e-6, atol=1e-9)
    # The slopes of a cell that is positive for some sets alone nearly cancel.
    torch.testing.assert_close(grad.double(), wide, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('classes', [1, 2, 80, 1203])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_focal_sums_of_any_dtype_and_number_of_classes(dtype, classes):
    logits, labels, weights = random_case(0, (2, classes, 30), 2, dtype)
    (ours, grad), (eager, wide) = both(logits, labels, weights)
    assert grad.dtype == dtype
    torch.testing.assert_close(ours.double(), eager, rtol=1e-6, atol=0)
    # Rounded once; Triton's interpreter rounds bfloat16 towards 0.
    rtol = max(1e-5, torch.finfo(dtype).eps)
    torch.testing.assert_close(grad.double(), wide, rtol=rtol, atol=6e-8)


@pytest.mark.parametrize('mean', [-8.0, -5.0])
def test_focal_sums_keep_half_precision_gradients_under_a_loss_scale(mean):
    logits, labels, weights = random_case(
        0, (3, 20, 50), 2, torch.float16, spread=0.8, mean=mean
    )
    (_, grad), (_, wide) = both(logits, labels, weights, scale=65536 / 2)
    assert grad.isfinite().all()
    torch.testing.assert_close(grad.double(), wide, rtol=1e-3, atol=6e-8)


def test_focal_sums_of_infinite_logits_stay_finite_and_a_nan_shows():
    inf = float('inf')
    logits = torch.tensor([[[inf, -inf, 0.0], [-inf, inf, inf]]], device=DEVICE)
    labels = torch.tensor([[[0, 1, 2]]], device=DEVICE)
    weights = torch.ones(1, 1, 3, device=DEVICE)
    (ours, grad), (eager, wide) = both(logits, labels, weights)
    torch.testing.assert_close(ours.double(), eager)
    torch.testing.assert_close(grad.double(), wide)
    logits[0, 0, 2] = float('nan')
    (ours, _), _ = both(logits, labels, weights)
    assert ours.isnan().all()


def test_focal_sums_of_parts_give_gradients_only_where_required():
    cases = [random_case(seed, (2, 5, 130 * seed), 2) for seed in range(3)]
    logits, labels, weights = zip(*cases)
    parts = [x.clone().requires_grad_(i == 2) for i, x in enumerate(logits)]
    sums = focal_sums(parts, labels, weights, 2.0, 0.25)
    sums.sum().backward()
    expected = focal_losses(logits, labels, weights, select_rows=True)
    torch.testing.assert_close(sums.detach(), expected)
    assert [x.grad is None for x in parts] == [True, True, False]
