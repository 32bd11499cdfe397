import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_consistent.losses import mined_losses
from mmdet_consistent.losses import softmax_losses as softmax_losses_of_parts
from tests.reference import consistent as reference


def softmax_losses(logits, labels, select_rows=None):
    """Of one part, with the classes last: (R, C), (K, R)."""
    parts = [logits[..., None]], [labels[..., None]]
    return softmax_losses_of_parts(*parts, select_rows)[0][..., 0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 8),
    classes=st.integers(2, 5),
    sets=st.integers(1, 4),
    all_rows=st.booleans(),
)
def test_softmax_losses_equal_the_naive_reference_and_pass_gradcheck(
    seed, rows, classes, sets, all_rows
):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (sets, rows), generator=generator)
    logits.requires_grad_()
    actual = softmax_losses(logits, labels)
    for k in range(sets):
        for r in range(rows):
            exps = [math.exp(x) for x in logits[r].tolist()]
            expected = -math.log(exps[labels[k, r]] / sum(exps))
            assert abs(actual[k, r].item() - expected) < 1e-9
    assert torch.autograd.gradcheck(
        lambda x: softmax_losses(x, labels, not all_rows), logits
    )


@pytest.mark.parametrize('all_rows', [False, True])
def test_softmax_losses_compute_half_precision_in_float32(all_rows):
    torch.manual_seed(0)
    logits = torch.randn(50, 4).bfloat16().requires_grad_()
    labels = torch.randint(0, 4, (2, 50))
    losses = softmax_losses(logits, labels, not all_rows)
    expected = softmax_losses(logits.detach().double(), labels)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-6)
    losses.sum().backward()
    wide = logits.detach().double().requires_grad_()
    softmax_losses(wide, labels).sum().backward()
    # The gradient is rounded once, at the end: to 8 bits.
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=2**-8, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    anchors=st.integers(1, 20),
    sets=st.integers(1, 3),
    ratio=st.sampled_from([0, 1, 3, 100]),
)
def test_mined_losses_equal_the_naive_choice(seed, images, anchors, sets, ratio):
    generator = torch.Generator().manual_seed(seed)
    shape = (sets, images, anchors)
    losses = torch.rand(shape, generator=generator, dtype=torch.float64)
    kind = torch.randint(0, 4, shape, generator=generator)
    positive, negative = kind == 0, kind >= 2
    actual = mined_losses(losses, positive, negative, ratio)
    for k in range(sets):
        expected = sum(
            reference.mine(
                losses[k, n].tolist(),
                positive[k, n].tolist(),
                negative[k, n].tolist(),
                ratio,
            )
            for n in range(images)
        )
        assert abs(actual[k].item() - expected) < 1e-9


def test_mined_losses_give_gradients_only_to_kept_anchors():
    losses = torch.tensor([[[5.0, 1.0, 4.0, 3.0, 2.0]]], requires_grad=True)
    positive = torch.tensor([[[False, True, False, False, False]]])
    negative = torch.tensor([[[True, False, False, True, True]]])
    mined_losses(losses, positive, negative, 2).sum().backward()
    assert losses.grad.tolist() == [[[1, 1, 0, 1, 0]]]


def test_softmax_losses_of_parts_equal_those_of_rows():
    logits, labels = torch.randn(2, 4, 3), torch.randint(0, 4, (2, 2, 3))
    actual = softmax_losses_of_parts([logits], [labels])[0]
    rows = softmax_losses(logits.transpose(1, 2).flatten(0, 1), labels.flatten(1))
    torch.testing.assert_close(actual, rows.view_as(actual))
