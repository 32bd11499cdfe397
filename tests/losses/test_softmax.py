import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_consistent.losses import mined_softmax_losses
from tests.reference import consistent as reference

LAYOUTS = ('contiguous', 'channels_last', 'transposed')


def random_case(
    seed, images=2, sizes=((2, 3), (1, 1)), anchors=2, classes=3, sets=2, dtype=None
):
    """Levels of logits, labels and weights; an anchor in five is ignored."""
    generator = torch.Generator().manual_seed(seed)
    levels = [
        3 * torch.randn(images, anchors * (classes + 1), *size, generator=generator)
        for size in sizes
    ]
    count = sum(anchors * height * width for height, width in sizes)
    labels = torch.randint(0, 3 * classes, (sets, images, count), generator=generator)
    weights = torch.rand(labels.shape, generator=generator) + 0.1
    ignored = torch.rand(labels.shape, generator=generator) < 0.2
    weights = weights.masked_fill(ignored, 0).to(dtype or torch.float64)
    return (
        [x.to(dtype or torch.float64) for x in levels],
        labels.clamp(max=classes),
        weights,
    )


def laid_out(x, layout):
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    return x.mT.contiguous().mT if layout == 'transposed' else x


def naive(levels, labels, weights, classes, ratio):
    """Loop over label sets, images and anchors."""
    rows = torch.cat(
        [x.permute(0, 2, 3, 1).reshape(len(x), -1, classes + 1) for x in levels], dim=1
    )
    sums = []
    for set_labels, set_weights in zip(labels, weights):
        total = rows.sum() * 0
        for image, image_labels in enumerate(set_labels.tolist()):
            terms = [
                weight * reference.softmax_loss(row, label)
                for row, label, weight in zip(
                    rows[image], image_labels, set_weights[image]
                )
            ]
            positive = [label < classes for label in image_labels]
            negative = [label == classes for label in image_labels]
            total = total + reference.mine(terms, positive, negative, ratio)
        sums.append(total)
    return torch.stack(sums)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1),
    anchors=st.integers(1, 3),
    classes=st.integers(1, 4),
    sets=st.integers(1, 4),
    ratio=st.sampled_from([0, 1, 2.5, 100]),
    layout=st.sampled_from(LAYOUTS),
    select_rows=st.booleans(),
)
def test_mined_softmax_losses_equal_the_naive_reference(
    seed, images, sizes, anchors, classes, sets, ratio, layout, select_rows
):
    case = random_case(seed, images, sizes[:3], anchors, classes, sets)
    levels, labels, weights = case
    upstream = torch.linspace(0.5, 2, sets, dtype=torch.float64)
    naive_levels = [x.clone().requires_grad_() for x in levels]
    expected = naive(naive_levels, labels, weights, classes, ratio)
    (expected * upstream).sum().backward()
    levels = [laid_out(x, layout).requires_grad_() for x in levels]
    actual = mined_softmax_losses(levels, labels, weights, classes, ratio, select_rows)
    (actual * upstream).sum().backward()
    torch.testing.assert_close(actual, expected)
    for x, naive_x in zip(levels, naive_levels):
        torch.testing.assert_close(x.grad, naive_x.grad)


@pytest.mark.parametrize('select_rows', [True, False])
def test_mined_softmax_losses_pass_gradcheck(select_rows):
    levels, labels, weights = random_case(0)
    leaves = [x.requires_grad_() for x in levels]
    assert torch.autograd.gradcheck(
        lambda *x: mined_softmax_losses(x, labels, weights, 3, 2, select_rows), leaves
    )


@pytest.mark.parametrize('select_rows', [True, False])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mined_softmax_losses_of_half_precision_are_rounded_once(dtype, select_rows):
    levels, labels, weights = random_case(1, sizes=((5, 7),), dtype=dtype)
    weights = weights.float()
    wide = [x.double().requires_grad_() for x in levels]
    expected = mined_softmax_losses(wide, labels, weights.double(), 3, 2)
    expected.sum().backward()
    leaves = [x.requires_grad_() for x in levels]
    actual = mined_softmax_losses(leaves, labels, weights, 3, 2, select_rows)
    actual.sum().backward()
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(
        leaves[0].grad.double(), wide[0].grad, rtol=rounding, atol=1e-6
    )


def test_mined_softmax_losses_second_backward_gives_the_same_gradient():
    levels, labels, weights = random_case(2)
    leaf = levels[0].requires_grad_()
    total = mined_softmax_losses(levels, labels, weights, 3, 2).sum()
    total.backward(retain_graph=True)
    once = leaf.grad.clone()
    total.backward()
    assert torch.equal(leaf.grad, 2 * once)


def test_mined_softmax_losses_of_an_infinite_logit_spoil_no_other_row():
    levels = [torch.zeros(1, 2, 1, 3)]
    levels[0][0, 0, 0, 0] = -float('inf')  # certain, and right
    levels[0].requires_grad_()
    labels = torch.tensor([[[1, 0, 1]]])
    total = mined_softmax_losses(levels, labels, torch.ones(1, 1, 3), 1, 1)
    total.sum().backward()
    assert total.item() == pytest.approx(2 * torch.log(torch.tensor(2.0)).item())
    assert levels[0].grad.isfinite().all()


def test_mined_softmax_losses_keep_the_layout_of_the_logits():
    levels, labels, weights = random_case(3)
    leaf = laid_out(levels[0], 'channels_last').requires_grad_()
    mined_softmax_losses([leaf, levels[1]], labels, weights, 3, 2).sum().backward()
    assert leaf.grad.is_contiguous(memory_format=torch.channels_last)
