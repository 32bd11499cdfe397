"""Focal losses, CARAFE, masked convolution and batch normalisation.

mmcv compiles them for GPUs only. They are compared with values from mmcv's own tests,
which a GPU gave, or with PyTorch's operators.
"""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from tests.support.operators import normal, ours, use_operators


@pytest.fixture
def mmcv_ops(monkeypatch):
    use_operators(monkeypatch, ours)
    import mmcv.ops

    return mmcv.ops


# Logits, labels, and mean loss and gradients of the sigmoid and the softmax loss.
LOSSES = [
    (
        [[1.0, 0], [0, 1.0]],
        [0, 1],
        (0.13562961, [[-0.00657264, 0.11185755], [0.11185755, -0.00657264]]),
        (0.00566451, [[-0.00657264, 0.00657264], [0.00657264, -0.00657264]]),
    ),
    (
        [[1.0, 0, -1.0], [0, 1.0, 2.0]],
        [2, 1],
        (
            1.10251057,
            [
                [0.28808805, 0.11185755, -0.09602935],
                [0.11185755, -0.00657264, 0.40376765],
            ],
        ),
        (
            0.34956908,
            [
                [0.10165970, 0.03739851, -0.13905823],
                [0.01227554, -0.10298023, 0.09070466],
            ],
        ),
    ),
]


@pytest.mark.parametrize('case', LOSSES)
@pytest.mark.parametrize('kind', ['sigmoid', 'softmax'])
def test_focal_losses_give_the_values_in_mmcvs_tests(mmcv_ops, kind, case):
    logits = torch.tensor(case[0], requires_grad=True)
    function = getattr(mmcv_ops, f'{kind}_focal_loss')
    loss = function(logits, torch.tensor(case[1]), 2.0, 0.25, None, 'mean')
    loss.backward()
    value, grads = case[2 if kind == 'sigmoid' else 3]
    assert loss.item() == pytest.approx(value, abs=2e-7)
    torch.testing.assert_close(logits.grad, torch.tensor(grads), rtol=0, atol=2e-7)


@pytest.mark.parametrize('gamma', [2.0, 1.5])
@pytest.mark.parametrize('kind', ['sigmoid', 'softmax'])
def test_focal_losses_have_the_gradients_of_finite_differences(mmcv_ops, kind, gamma):
    rng = np.random.RandomState(0)
    logits = normal(rng, 6, 4).double().requires_grad_()
    # 4 is background for the sigmoid loss; -1 has no softmax loss.
    labels = torch.tensor([0, 1, 2, 3, 0, 4 if kind == 'sigmoid' else -1])
    weight = torch.tensor([0.5, 1, 2, 3]).double()
    function = getattr(mmcv_ops, f'{kind}_focal_loss')
    for given in (None, weight):
        assert gradcheck(
            lambda x, w=given: function(x, labels, gamma, 0.3, w, 'sum'), (logits,)
        )


def test_sigmoid_focal_loss_equals_mmdets_version_for_a_cpu(mmcv_ops):
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    rng = np.random.RandomState(0)
    logits, labels = normal(rng, 50, 8), torch.from_numpy(rng.randint(0, 9, 50))
    target = F.one_hot(labels, 9)[:, :8]
    found = mmcv_ops.sigmoid_focal_loss(logits, labels, 2.0, 0.25, None, 'none')
    expected = py_sigmoid_focal_loss(logits, target, reduction='none')
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('logit', [-200.0, 200.0])
def test_sigmoid_focal_loss_of_extreme_scores_is_finite(mmcv_ops, logit):
    logits = torch.full((2, 1), logit, requires_grad=True)
    labels = torch.tensor([0, 1])
    loss = mmcv_ops.sigmoid_focal_loss(logits, labels, 2.0, 0.25, None, 'none')
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    # log of the smallest normal float32, as in mmcv
    assert loss.max().item() == pytest.approx(87.33654 * (0.25 if logit < 0 else 0.75))


def plain_carafe(features, masks, kernel, groups, scale):
    """Each output pixel is a neighbourhood times its own kernel."""
    batch, channels, height, width = features.shape
    patches = F.unfold(features, kernel, padding=kernel // 2)
    patches = patches.view(batch, channels, kernel**2, height, width)
    patches = patches.repeat_interleave(scale, 3).repeat_interleave(scale, 4)
    of_group = masks.view(batch, groups, kernel**2, height * scale, width * scale)
    return (patches * of_group.repeat_interleave(channels // groups, 1)).sum(2)


@pytest.mark.parametrize(
    ('kernel', 'groups', 'scale'), [(3, 1, 2), (5, 4, 2), (1, 2, 3)]
)
def test_carafe_reassembles_neighbourhoods(mmcv_ops, kernel, groups, scale):
    rng = np.random.RandomState(0)
    features = normal(rng, 2, 8, 3, 4).double().requires_grad_()
    masks = normal(rng, 2, groups * kernel**2, 3 * scale, 4 * scale).double()
    masks.requires_grad_()
    options = (kernel, groups, scale)
    found = mmcv_ops.carafe(features, masks, *options)
    expected = plain_carafe(features, masks, *options)
    torch.testing.assert_close(found, expected)
    seed = torch.randn_like(found)
    for grad, wanted in zip(
        torch.autograd.grad(found, (features, masks), seed),
        torch.autograd.grad(expected, (features, masks), seed),
    ):
        torch.testing.assert_close(grad, wanted)


@pytest.mark.filterwarnings('ignore:This overload of addmm')
@pytest.mark.parametrize('size', [(1, 1), (3, 3), (1, 5)])
def test_masked_convolution_is_zero_elsewhere(mmcv_ops, size):
    rng = np.random.RandomState(0)
    features, weight = normal(rng, 1, 3, 5, 6), normal(rng, 4, 3, *size)
    mask, bias = (normal(rng, 1, 5, 6) > 0).float(), normal(rng, 4)
    padding = tuple(side // 2 for side in size)
    found = mmcv_ops.masked_conv2d(features, mask, weight, bias, padding)
    expected = F.conv2d(features, weight, bias, padding=padding) * mask
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_synchronised_batch_norm_of_one_process_is_batch_norm(mmcv_ops):
    rng = np.random.RandomState(0)
    inputs = normal(rng, 3, 4, 5, 6).requires_grad_()
    weight, bias = normal(rng, 4).requires_grad_(), normal(rng, 4).requires_grad_()
    (mean, var), (ref_mean, ref_var) = ((torch.zeros(4), torch.ones(4)) for _ in '12')
    function = sys.modules['mmcv.ops.sync_bn'].SyncBatchNormFunction.apply
    options = (torch.tensor(0.1), 1e-5, None, 1, 'default')
    found = function(inputs, mean, var, weight, bias, *options)
    expected = F.batch_norm(inputs, ref_mean, ref_var, weight, bias, training=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(mean, ref_mean)
    torch.testing.assert_close(var, ref_var)
    leaves, seed = (inputs, weight, bias), torch.randn_like(found)
    for grad, wanted in zip(
        torch.autograd.grad(found, leaves, seed),
        torch.autograd.grad(expected, leaves, seed),
    ):
        torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-4)
