"""NMS, soft NMS and NMS groups: the indices of compiled mmcv, ties included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_consistent.ops import nms as nms_module
from tests.support import operators
from tests.support.operators import compiled, ours, run_nms, run_softnms
from tests.support.strategies import boxes as some_boxes

needs_compiled = pytest.mark.skipif(
    compiled is None, reason='mmcv is installed without compiled operators'
)
# Thresholds that whole boxes' IoUs hit exactly; some round up in float32, some down.
THRESHOLDS = (0.0, 0.1, 0.2, 1 / 3, 0.4, 0.5, 0.6, 0.7, 1.0)
CLOSE = dict(rtol=0, atol=1e-6, equal_nan=True)


@st.composite
def detections(draw, smallest=0):
    """Boxes with whole coordinates, and scores of which many are equal."""
    boxes = draw(st.lists(some_boxes(smallest, 12, corner=12), max_size=30))
    scores = draw(
        st.lists(
            st.sampled_from((0.1, 0.5, 0.5, 0.9)),
            min_size=len(boxes),
            max_size=len(boxes),
        )
    )
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return boxes, torch.tensor(scores, dtype=torch.float32)


def iou(first, second, offset):
    """IoU of two boxes in float32, as in mmcv's loop."""
    one = np.float32(1)
    first, second = first.numpy(), second.numpy()
    sides = np.maximum(
        np.minimum(first[2:], second[2:])
        - np.maximum(first[:2], second[:2])
        + one * offset,
        0,
    )
    area = [np.prod(box[2:] - box[:2] + one * offset) for box in (first, second)]
    with np.errstate(invalid='ignore'):
        return np.prod(sides) / (area[0] + area[1] - np.prod(sides))


def plain_nms(boxes, scores, threshold, offset):
    """Keep a box if no better kept one overlaps it by more than the threshold."""
    kept = []
    for index in scores.sort(0, descending=True)[1].tolist():
        overlaps = (iou(boxes[other], boxes[index], offset) for other in kept)
        if not any(overlap > np.float32(threshold) for overlap in overlaps):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


WAYS = dict(
    chosen={},
    pairs=dict(MIN_SPARSITY=1),
    # smaller than the inputs
    blocks=dict(MAX_PAIRS=-1, CPU_BLOCK=8, COLUMNS=20),
)
each_way = pytest.mark.parametrize('way', WAYS)


def our_nms(way, boxes, scores, threshold, offset=0):
    """Run NMS by pairs or by blocks."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(nms_module, name, value)
        return run_nms(ours, boxes, scores, threshold, offset)


@each_way
@given(detections(), st.sampled_from(THRESHOLDS), st.sampled_from((0, 1)))
def test_nms_keeps_what_a_plain_loop_keeps(way, found, threshold, offset):
    boxes, scores = found
    kept = our_nms(way, boxes, scores, threshold, offset)
    assert torch.equal(kept, plain_nms(boxes, scores, threshold, offset))


@needs_compiled
@each_way
@given(detections(), st.sampled_from(THRESHOLDS), st.sampled_from((0, 1)))
def test_nms_equals_compiled_mmcvs(way, found, threshold, offset):
    kept = our_nms(way, *found, threshold, offset)
    assert torch.equal(kept, run_nms(compiled, *found, threshold, offset))


@needs_compiled
@each_way
@pytest.mark.parametrize('classes', [1, 3, 80])
@pytest.mark.parametrize('spread', [20.0, 200.0, 2000.0])
def test_nms_equals_compiled_mmcvs_on_many_boxes(way, classes, spread):
    rng = np.random.RandomState(0)
    boxes = operators.random_boxes(rng, 400, spread)
    boxes = boxes + torch.from_numpy(rng.randint(0, classes, (400, 1))) * 3000.0
    scores = torch.from_numpy(rng.rand(400).astype(np.float32))
    for offset in (0, 1):
        kept = our_nms(way, boxes, scores, 0.5, offset)
        assert torch.equal(kept, run_nms(compiled, boxes, scores, 0.5, offset))


@each_way
def test_nms_keeps_all_boxes_with_nan(way):
    boxes = torch.tensor([[0, 0, 9, 9], [0, 0, 9, float('nan')], [0, 0, 9, 8.0]] * 3)
    scores = torch.linspace(1, 0, 9)
    assert our_nms(way, boxes, scores, 0.5).tolist() == [0, 1, 4, 7]


@each_way
def test_nms_finds_overlaps_of_a_pixel_in_large_coordinates(way):
    """``x2 + 1`` rounds to ``x2`` there."""
    boxes = torch.tensor([[0, 0, 2**25, 1], [2**25, 0, 2**25, 1]]).float()
    scores = torch.tensor([0.9, 0.8])
    kept = our_nms(way, boxes, scores, 0.0, offset=1)
    assert kept.tolist() == plain_nms(boxes, scores, 0.0, 1).tolist() == [0]


@pytest.mark.parametrize(('kept', 'most'), [(1, 1.2), (40, 41)])
def test_nms_compares_each_box_with_kept_boxes_only(monkeypatch, kept, most):
    """4,000 boxes at ``kept`` places: the cost is N × kept, and not N²."""
    compared = []
    original = nms_module._iou

    def count(rows, columns, offset):
        result = original(rows, columns, offset)
        compared.append(result.numel())
        return result

    monkeypatch.setattr(nms_module, '_iou', count)
    monkeypatch.setattr(nms_module, 'MAX_PAIRS', -1)
    num = 4000
    at = torch.arange(num).remainder(kept)[:, None] * torch.tensor([0, 20, 0, 20])
    boxes = torch.tensor([0, 0, 10, 10]) + at
    found = run_nms(ours, boxes.float(), torch.linspace(1, 0, num), 0.5)
    assert found.tolist() == list(range(kept))
    assert sum(compared) <= most * num + nms_module.CPU_BLOCK**2


@needs_compiled
@given(
    detections(),
    st.sampled_from((0, 1, 2)),
    st.sampled_from(THRESHOLDS),
    st.sampled_from((0, 1)),
)
def test_softnms_equals_compiled_mmcvs(found, method, threshold, offset):
    expected = run_softnms(compiled, *found, method, threshold, offset)
    actual = run_softnms(ours, *found, method, threshold, offset)
    assert torch.equal(actual[0], expected[0])
    torch.testing.assert_close(*(x[1] for x in (actual, expected)), **CLOSE)


@needs_compiled
@given(detections(smallest=1), st.sampled_from(THRESHOLDS))
def test_nms_match_equals_compiled_mmcvs(found, threshold):
    dets = torch.cat([found[0], found[1][:, None]], 1)
    assert ours.nms_match(dets, threshold) == compiled.nms_match(dets, threshold)


@settings(max_examples=30)
@given(detections(), st.sampled_from((1, 2, 5)))
def test_batched_nms_does_not_mix_classes(found, classes):
    boxes, scores = found
    labels = torch.arange(len(boxes)) % classes
    if not len(boxes):
        return
    with pytest.MonkeyPatch.context() as patch:
        operators.use_operators(patch, ours)
        from mmcv.ops import batched_nms

        options = dict(type='nms', iou_threshold=0.5)
        kept = batched_nms(boxes, scores, labels, options)[1]
    order = scores.sort(0, descending=True)[1]
    for label in range(classes):
        own = order[labels[order] == label]  # equal scores in the order of all boxes
        ranks = torch.arange(len(own), 0, -1).float()
        expected = own[plain_nms(boxes[own], ranks, 0.5, 0)]
        assert set(kept[labels[kept] == label].tolist()) == set(expected.tolist())
