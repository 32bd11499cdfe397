import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.losses import FocalLoss

from mmdet_consistent.losses import blocks
from mmdet_consistent.losses import focal_losses as focal_losses_of_parts
from tests.reference import consistent as reference


def focal_losses(logits, labels, weights, gamma=2.0, alpha=0.25, select_rows=None):
    """Of one part, with the classes last: (R, C), (K, R), (K, R)."""
    parts = [logits[..., None]], [labels[..., None]], [weights[..., None]]
    return focal_losses_of_parts(*parts, gamma, alpha, select_rows)


def random_case(seed, rows, classes, sets, spread=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, classes, generator=generator, dtype=dtype)
    labels = torch.randint(0, classes + 1, (sets, rows), generator=generator)
    background = torch.rand(sets, rows, generator=generator) < 0.7
    labels = torch.where(background, classes, labels)
    weights = torch.rand(sets, rows, generator=generator, dtype=dtype)
    weights = torch.where(torch.rand(sets, rows, generator=generator) < 0.3, 0, weights)
    return logits, labels, weights


CASES = dict(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 9),
    classes=st.integers(1, 5),
    sets=st.integers(1, 4),
)


@settings(max_examples=60, deadline=None)
@given(
    **CASES,
    gamma=st.sampled_from([0.0, 1.0, 2.0, 2.5, 3.0]),
    alpha=st.sampled_from([0.0, 0.25, 0.9]),
    block=st.sampled_from([1, 7, 2**15]),
)
def test_focal_losses_equal_the_naive_reference(
    seed, rows, classes, sets, gamma, alpha, block
):
    logits, labels, weights = random_case(seed, rows, classes, sets)
    upstream = torch.linspace(0.5, 2, sets, dtype=torch.float64)
    naive_logits = logits.clone().requires_grad_()
    expected = torch.stack(
        [
            sum(
                (
                    w * reference.focal(x, int(y), gamma, alpha)
                    for x, y, w in zip(naive_logits, labels[k], weights[k])
                ),
                start=naive_logits.sum() * 0,
            )
            for k in range(sets)
        ]
    )
    (expected * upstream).sum().backward()
    logits.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, 'CPU_BLOCK', block)
        actual = focal_losses(logits, labels, weights, gamma, alpha)
        (actual * upstream).sum().backward()
    torch.testing.assert_close(actual, expected.detach())
    torch.testing.assert_close(logits.grad, naive_logits.grad)


@settings(max_examples=20, deadline=None)
@given(**CASES)
def test_focal_losses_pass_gradcheck(seed, rows, classes, sets):
    logits, labels, weights = random_case(seed, max(rows, 1), classes, sets)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: focal_losses(x, labels, weights, 1.5, 0.3), logits
    )


@settings(max_examples=20, deadline=None)
@given(**CASES)
def test_focal_losses_do_not_depend_on_row_selection(seed, rows, classes, sets):
    results = []
    for select_rows in (False, True):
        logits, labels, weights = random_case(seed, rows, classes, sets)
        logits.requires_grad_()
        losses = focal_losses(logits, labels, weights, select_rows=select_rows)
        losses.sum().backward()
        results.append((losses.detach(), logits.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize('classes', [1, 80, 1203])
def test_focal_losses_equal_mmdets_loss(classes):
    logits, labels, weights = random_case(0, 500, classes, 2, dtype=torch.float32)
    theirs, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = FocalLoss()
    expected = torch.stack(
        [loss(theirs, labels[k], weights[k], avg_factor=1.0) for k in range(2)]
    )
    expected.sum().backward()
    actual = focal_losses(ours, labels, weights)
    actual.sum().backward()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_focal_losses_keep_digits_of_confident_positives():
    """S - f⁻ is a small difference of large numbers there."""
    logits = torch.full((1000, 3), -6.0)
    logits[:, 0] = 6.0
    labels, weights = torch.zeros(1, 1000, dtype=torch.long), torch.ones(1, 1000)
    actual = focal_losses(logits, labels, weights)
    expected = 1000 * sum(reference.focal(logits[0].double(), 0).reshape(1).tolist())
    assert actual.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_focal_losses_sum_half_precision_in_float64(dtype):
    logits, labels, weights = random_case(1, 4000, 20, 2, dtype=torch.float32)
    logits = logits.to(dtype)
    expected = focal_losses(logits.double(), labels, weights)
    leaf = logits.clone().requires_grad_()
    actual = focal_losses(leaf, labels, weights)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=0)
    actual.sum().backward()
    wide = logits.double().requires_grad_()
    focal_losses(wide, labels, weights).sum().backward()
    smallest = torch.finfo(dtype).smallest_normal / 2
    torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=0.02, atol=smallest)


@pytest.mark.parametrize('select_rows', [True, False])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('normalizer', [1, 2, 400])
def test_focal_losses_keep_small_gradients_under_a_loss_scale(
    dtype, normalizer, select_rows
):
    """Logits near -8, as an untrained detector's; nothing vanishes or overflows."""
    logits, labels, weights = random_case(2, 300, 80, 2, 0.8, torch.float32)
    logits = (logits - 8).to(dtype)
    scale = 65536 / normalizer
    leaf, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
    (
        focal_losses(leaf, labels, weights, select_rows=select_rows) * scale
    ).sum().backward()
    (focal_losses(wide, labels, weights) * scale).sum().backward()
    assert leaf.grad.isfinite().all()
    torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=0.02, atol=6e-8)
    background = (labels == 80).all(dim=0)
    sums = leaf.grad[background].double().sum(), wide.grad[background].sum()
    torch.testing.assert_close(*sums, rtol=0.02, atol=0)


def test_focal_losses_of_infinite_logits_stay_finite():
    inf = float('inf')
    logits = torch.tensor([[inf, -inf], [-inf, inf], [0.0, inf]], requires_grad=True)
    labels = torch.tensor([[0, 1, 2]])
    losses = focal_losses(logits, labels, torch.ones(1, 3))
    losses.sum().backward()
    # The first two rows are perfectly right, the third one is perfectly wrong.
    assert 1e5 < losses.item() < 1e7
    assert logits.grad.isfinite().all()
    right = focal_losses(logits[:2], labels[:, :2], torch.ones(1, 2))
    assert right.item() == 0


def test_focal_losses_of_an_infinitely_wrong_positive_stay_finite():
    logits = torch.tensor([[-float('inf')]], requires_grad=True)
    loss = focal_losses(logits, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1))
    loss.sum().backward()
    assert 1e5 < loss.item() < 1e7
    assert logits.grad.isfinite().all()


def test_focal_losses_keep_small_terms_beside_large_ones():
    """In float32, 2²⁴ + 1 is 2²⁴."""
    count = 1000
    logits = torch.full((count + 1, 1), 64.0)
    logits[0] = 2.0**19
    weights = torch.full((1, count + 1), 2.0**-6)
    weights[0, 0] = 2.0**5
    labels = torch.ones((1, count + 1), dtype=torch.long)
    # Without focusing, background's term at a large logit is the logit.
    actual = focal_losses(logits, labels, weights, gamma=0.0, alpha=0.0)
    assert actual.item() == 2**24 + count
    actual = focal_losses(-logits, 0 * labels, weights, gamma=0.0, alpha=1.0)
    assert actual.item() == 2**24 + count


def test_focal_losses_pass_a_nan_through():
    logits = torch.zeros(2, 2)
    logits[1, 0] = float('nan')
    labels = torch.full((1, 2), 2)
    assert focal_losses(logits, labels, torch.ones(1, 2)).isnan()


def test_focal_losses_second_backward_gives_the_same_gradient():
    logits, labels, weights = random_case(3, 5, 2, 2)
    logits.requires_grad_()
    total = focal_losses(logits, labels, weights).sum()
    total.backward(retain_graph=True)
    once = logits.grad.clone()
    total.backward()
    assert torch.equal(logits.grad, 2 * once)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=3),
    classes=st.integers(1, 4),
    sets=st.integers(1, 3),
    block=st.sampled_from([1, 4, 10, 2**15]),
)
def test_focal_losses_of_parts_equal_those_of_the_whole(
    seed, shapes, classes, sets, block
):
    shapes = [*shapes, (2, 3)]
    rows = [b * p for b, p in shapes]
    logits, labels, weights = random_case(seed, sum(rows), classes, sets)
    whole = logits.clone().requires_grad_()
    expected = focal_losses(whole, labels, weights)
    expected.sum().backward()
    logits.requires_grad_()
    parts = [
        x.unflatten(0, shape).transpose(1, 2)
        for x, shape in zip(logits.split(rows), shapes)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, 'CPU_BLOCK', block)
        actual = focal_losses_of_parts(
            parts,
            [x.unflatten(1, s) for x, s in zip(labels.split(rows, 1), shapes)],
            [x.unflatten(1, s) for x, s in zip(weights.split(rows, 1), shapes)],
        )
        actual.sum().backward()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(logits.grad, whole.grad)


@pytest.mark.parametrize('asking', [(0, 2), (1,), (2,)])
def test_focal_losses_give_gradients_only_to_parts_that_require_them(asking):
    cases = [random_case(seed, 4, 3, 2) for seed in range(3)]
    whole = [logits.clone().requires_grad_() for logits, _, _ in cases]
    sum(focal_losses(x, *case[1:]).sum() for x, case in zip(whole, cases)).backward()
    parts = [
        logits.clone().requires_grad_(part in asking)
        for part, (logits, _, _) in enumerate(cases)
    ]
    focal_losses_of_parts(
        [x[..., None] for x in parts],
        [labels[..., None] for _, labels, _ in cases],
        [weights[..., None] for _, _, weights in cases],
    ).sum().backward()
    for part, (x, expected) in enumerate(zip(parts, whole)):
        if part in asking:
            torch.testing.assert_close(x.grad, expected.grad)
        else:
            assert x.grad is None
