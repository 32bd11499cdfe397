"""Whatever comes in, the loss is finite, or its culprit can be named.

Hypothesis makes the cases: outputs with huge, infinite and missing numbers in any
stage, boxes of a pixel and of the whole world, images without ground truth, or with
nothing but ignore regions.
"""

import functools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from mmdet_consistent.engine.hooks import FiniteLossHook
from tests.support.builders import (
    IMAGE,
    as_scalars,
    build_head,
    features,
    metas,
    total_loss,
)
from tests.support.ssd_builders import build_ssd_head, ssd_features

IMAGES = 2
HEADS = {
    'consistent': dict(),
    'three label stages': dict(label_stages=3),
    'three regression stages': dict(reg_stages=3),
    'cascade': dict(variant='cascade'),
    'gated cascade': dict(variant='gated_cascade'),
    'base head first': dict(
        train_cfg=dict(
            sampler=dict(
                type='RandomSampler',
                num=64,
                pos_fraction=0.5,
                add_gt_as_proposals=False,
            )
        )
    ),
    'decoded boxes': dict(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss')),
    'SSD': dict(),
    'SSD cascade': dict(variant='cascade'),
}
EXAMPLES = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@functools.cache
def head_and_outputs(name):
    ssd = name.startswith('SSD')
    head = (build_ssd_head if ssd else build_head)(**HEADS[name])
    with torch.no_grad():
        return head, head((ssd_features if ssd else features)(IMAGES))


coordinate = st.one_of(
    st.floats(0, IMAGE, width=32),
    st.sampled_from([0.0, 1.0, IMAGE - 1.0, float(IMAGE), -1e4, 1e4, 1e6]),
)


@st.composite
def box(draw):
    x, y = draw(coordinate), draw(coordinate)
    side = st.sampled_from([0.5, 1.0, 8.0, 60.0, 128.0, 1e4])
    return [x, y, x + draw(side), y + draw(side)]


def ground_truth_of(boxes, labels=3):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)) % labels,
    )


ground_truths = st.lists(
    st.lists(box(), max_size=4).map(ground_truth_of), min_size=IMAGES, max_size=IMAGES
)
ignored = st.one_of(
    st.none(),
    st.sampled_from([[[-1e4, -1e4, 1e4, 1e4]], [[0, 0, 64, 64]], []]).map(
        lambda boxes: [ground_truth_of(boxes)] * IMAGES
    ),
)


def poisons(values):
    """(output, level, image, value, share of the numbers, seed)."""
    return st.lists(
        st.tuples(
            st.sampled_from(['scores', 'deltas']),
            st.integers(0, 2),
            st.integers(0, IMAGES - 1),
            st.sampled_from(values),
            st.sampled_from([0.0, 0.01, 0.5, 1.0]),
            st.integers(0, 99),
        ),
        max_size=3,
    )


def poisoned(outputs, poison):
    """Copies of the outputs with some numbers replaced, ready for gradients."""
    copies = {
        name: [level.detach().clone() for level in levels]
        for name, levels in zip(('scores', 'deltas'), outputs)
    }
    for name, level, image, value, share, seed in poison:
        target = copies[name][level][image].flatten()
        order = torch.randperm(
            len(target), generator=torch.Generator().manual_seed(seed)
        )
        chosen = order[: max(1, int(share * len(target)))]
        target[chosen] = value
        copies[name][level][image] = target.view_as(copies[name][level][image])
    for levels in copies.values():
        for level in levels:
            level.requires_grad_()
    return copies['scores'], copies['deltas']


def run(head, scores, deltas, gts, ignore=None):
    losses = as_scalars(head.loss_by_feat(scores, deltas, gts, metas(len(gts)), ignore))
    total = total_loss(losses)
    total.backward()
    return losses, [level.grad for level in (*scores, *deltas)]


def all_finite(tensors):
    return all(bool(t.isfinite().all()) for t in tensors if t is not None)


@pytest.mark.parametrize('name', HEADS)
@EXAMPLES
@given(
    gts=ground_truths,
    ignore=ignored,
    poison=poisons([0.0, 30.0, -30.0, 1e4, -1e4, 1e15, -1e15]),
)
def test_finite_outputs_of_any_size_give_finite_losses_and_gradients(
    name, gts, ignore, poison
):
    head, outputs = head_and_outputs(name)
    torch.manual_seed(0)  # of samplers
    losses, gradients = run(head, *poisoned(outputs, poison), gts, ignore)
    assert all_finite(losses.values()), losses
    assert all_finite(gradients)
    assert all(v >= 0 for v in losses.values())


@pytest.mark.parametrize('name', HEADS)
@EXAMPLES
@given(
    gts=ground_truths,
    poison=poisons([math.nan, math.inf, -math.inf, 1e38]).filter(bool),
)
def test_non_finite_outputs_raise_or_leave_finite_gradients(name, gts, poison):
    head, outputs = head_and_outputs(name)
    torch.manual_seed(0)
    scores, deltas = poisoned(outputs, poison)
    losses, gradients = run(head, scores, deltas, gts)
    total = total_loss(losses)
    if total.isfinite():
        # What wasn't used (a box that isn't positive) must not come back.
        assert all_finite(gradients)
        return
    # The guard finds the very tensor, level and image.
    # (By the tensors, as one poison may have replaced another.)
    bad = {
        (output, level, image)
        for output, levels in zip(('scores', 'deltas'), (scores, deltas))
        for level, tensor in enumerate(levels)
        for image in range(IMAGES)
        if not tensor[image].isfinite().all()
    }
    hook = FiniteLossHook()
    hook._head = head
    reported = {
        (kind, level, image)
        for what, tensor in hook._tensors(None, (scores, deltas))
        for image in range(IMAGES)
        if not tensor[image].isfinite().all()
        for kind in ['scores' if 'classification' in what else 'deltas']
        for level in [int(what.rsplit('level ', 1)[1])]
    }
    assert reported == bad
    # Numbers near float32's end are finite and still may overflow a sum.
    assert bad or any(abs(value) > 1e37 for *_, value, _, _ in poison)


@pytest.mark.parametrize('name', HEADS)
def test_exploding_refined_boxes_leave_later_label_losses_finite(name):
    """Refined anchors that are infinite, inverted or a hair wide are left out."""
    head, outputs = head_and_outputs(name)
    gts = [ground_truth_of([[10, 10, 70, 80]]), ground_truth_of([[5, 60, 60, 120]])]
    for value in (1e38, -1e38, math.inf, -math.inf, math.nan):
        scores, deltas = poisoned(outputs, [])
        stages = head.reg_stages
        with torch.no_grad():
            for level in deltas:
                by_stage = level.unflatten(1, (-1, stages, 4))
                # Everywhere but where a target is: those would be an honest NaN.
                by_stage[:, :, 0, :, ::2, ::2] = value
        losses, _ = run(head, scores, deltas, gts)
        for key, loss in losses.items():
            if key not in ('loss_bbox', 'loss_bbox_s1', 'loss_bbox_s2'):
                assert loss.isfinite(), (value, key)


@pytest.mark.parametrize('name', ['consistent', 'SSD'])
def test_ten_thousand_ground_truths_give_finite_losses(name):
    head, outputs = head_and_outputs(name)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(10_000, 2, generator=generator) * IMAGE
    sides = torch.rand(10_000, 2, generator=generator) * 60 + 1
    many = ground_truth_of(torch.cat([corners, corners + sides], dim=1).tolist())
    losses, gradients = run(head, *poisoned(outputs, []), [many, ground_truth_of([])])
    assert all_finite(losses.values())
    assert all_finite(gradients)
    assert losses['num_pos'] > 0


@pytest.mark.parametrize('name', HEADS)
def test_images_of_ignore_regions_or_nothing_give_zero_box_losses(name):
    head, outputs = head_and_outputs(name)
    everything = [ground_truth_of([[-1e4, -1e4, 1e4, 1e4]])] * IMAGES
    for gts in ([ground_truth_of([])] * IMAGES, everything):
        losses, gradients = run(head, *poisoned(outputs, []), gts, everything)
        assert all_finite(losses.values())
        assert all_finite(gradients)
    nothing = [ground_truth_of([])] * IMAGES
    losses, _ = run(head, *poisoned(outputs, []), nothing)
    for key, value in losses.items():
        if key.startswith(('num_pos', 'loss_bbox')):
            assert value == 0, key
