import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, TBLRBBoxCoder

from mmdet_consistent.task_modules.box_deltas import decode_boxes, encode_boxes
from tests.reference import consistent as reference
from tests.support.waits import Waits

CODERS = {
    'retinanet': {},
    'ssd': dict(target_stds=(0.1, 0.1, 0.2, 0.2)),
    'with_means': dict(target_means=(0.1, 0.1, -0.3, -0.3), target_stds=(2, 2, 0.5, 3)),
    'four_stds': dict(target_stds=(0.1, 0.2, 0.3, 0.4)),
    'clamped': dict(add_ctr_clamp=True, ctr_clamp=2),
}


def random_boxes(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator) * 100 - 20
    size = torch.rand(*shape, 2, generator=generator) * 80 + 0.5
    return torch.cat([low, low + size], dim=-1)


@pytest.mark.parametrize('name', CODERS)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    images=st.integers(1, 3),
    anchors=st.integers(0, 9),
    shared=st.booleans(),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
)
def test_decode_boxes_equals_mmdets_coder(name, seed, images, anchors, shared, spread):
    coder = DeltaXYWHBBoxCoder(**CODERS[name])
    boxes = random_boxes(seed, 1 if shared else images, anchors)
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(images, anchors, 4, generator=generator) * spread
    ours, theirs = deltas.clone().requires_grad_(), deltas.clone().requires_grad_()
    decoded = decode_boxes(coder, boxes, ours)
    rows = boxes.expand(images, anchors, 4).reshape(-1, 4)
    expected = coder.decode(rows, theirs.reshape(-1, 4)).view_as(deltas)
    torch.testing.assert_close(decoded, expected, rtol=1e-6, atol=1e-5)
    decoded.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize('name', CODERS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(0, 9))
def test_encode_boxes_equals_mmdets_coder_and_is_decoded_again(name, seed, rows):
    coder = DeltaXYWHBBoxCoder(**CODERS[name])
    boxes, gt_bboxes = random_boxes(seed, rows), random_boxes(seed + 1, rows)
    deltas = encode_boxes(coder, boxes, gt_bboxes)
    expected = coder.encode(boxes, gt_bboxes)
    torch.testing.assert_close(deltas, expected, rtol=1e-6, atol=1e-6)
    if not coder.add_ctr_clamp:
        again = decode_boxes(coder, boxes, deltas)
        inside = expected * torch.tensor(coder.stds) + torch.tensor(coder.means)
        inside = (inside[:, 2:].abs() < 4).all(dim=1)
        torch.testing.assert_close(
            again[inside], gt_bboxes[inside], rtol=1e-4, atol=1e-3
        )


def test_decode_boxes_equals_the_naive_reference():
    coder = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    boxes, deltas = random_boxes(0, 5), torch.randn(5, 4)
    expected = [
        reference.decode(box, row, stds=coder.stds)
        for box, row in zip(boxes.tolist(), deltas)
    ]
    torch.testing.assert_close(
        decode_boxes(coder, boxes, deltas), torch.tensor(expected)
    )


def test_decode_boxes_asks_any_other_coder():
    coder = TBLRBBoxCoder()
    boxes, deltas = random_boxes(0, 2, 5), torch.rand(2, 5, 4)
    expected = coder.decode(boxes.reshape(-1, 4), deltas.reshape(-1, 4))
    assert torch.equal(decode_boxes(coder, boxes, deltas).view(-1, 4), expected)
    rows = boxes[0], random_boxes(1, 5)
    assert torch.equal(encode_boxes(coder, *rows), coder.encode(*rows))


def test_box_deltas_copy_no_list_to_the_device():
    coder = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    boxes = random_boxes(0, 3)
    with Waits() as waits:
        decode_boxes(coder, boxes, encode_boxes(coder, boxes, boxes + 1))
    assert waits.found == []
    with Waits() as waits:
        coder.decode(boxes, coder.encode(boxes, boxes + 1))
    assert len(waits.found) == 4
