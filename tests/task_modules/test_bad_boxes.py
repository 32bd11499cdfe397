"""Assigner and coder under boxes that no detector should have made."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from mmdet_consistent import ChainedBBoxCoder, SecondPassAssigner

EXAMPLES = settings(max_examples=300, deadline=None, derandomize=True)
number = st.one_of(
    st.floats(-200, 200, width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e38, -1e38, 0.0]),
)
any_box = st.lists(number, min_size=4, max_size=4)


@st.composite
def sound_box(draw):
    x, y = draw(st.floats(-50, 150, width=32)), draw(st.floats(-50, 150, width=32))
    side = st.floats(0.5, 200, width=32)
    return [x, y, x + draw(side), y + draw(side)]


def tensor(boxes):
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def iou(a, b):
    """By hand, in double precision."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inter / (area - inter)


@EXAMPLES
@given(
    anchors=st.lists(st.one_of(sound_box(), any_box), min_size=1, max_size=12),
    gts=st.lists(sound_box(), max_size=5),
    thresholds=st.sampled_from([(0.6, 0.5), (0.7, 0.6), (0.5, 0.5), (1.0, 0.0)]),
)
def test_assigner_accepts_any_box(anchors, gts, thresholds):
    pos, neg = thresholds
    assigner = SecondPassAssigner(pos_iou_thr=pos, neg_iou_thr=neg)
    result = assigner.assign(
        InstanceData(priors=tensor(anchors)),
        InstanceData(bboxes=tensor(gts), labels=torch.arange(len(gts))),
    )
    assert result.gt_inds.shape == (len(anchors),)
    for anchor, index in zip(tensor(anchors).tolist(), result.gt_inds.tolist()):
        assert -1 <= index <= len(gts)
        sane = all(map(math.isfinite, anchor)) and max(map(abs, anchor)) < 1e6
        sane = sane and anchor[2] - anchor[0] > 0.1 and anchor[3] - anchor[1] > 0.1
        if not sane:
            # No number, no area, or none that float32 holds: never positive.
            x1, y1, x2, y2 = anchor
            if not (x2 > x1 and y2 > y1) or math.isinf((x2 - x1) * (y2 - y1)):
                assert index <= 0
            continue
        best = max((iou(anchor, gt) for gt in tensor(gts).tolist()), default=0.0)
        if min(abs(best - pos), abs(best - neg)) > 1e-4:  # not a rounding's matter
            expected = 1 if best >= pos else 0 if best < neg else -1
            assert (index > 0) - (index < 0) == expected


def coder(stages, **options):
    stage = dict(type='DeltaXYWHBBoxCoder', **options)
    return ChainedBBoxCoder([dict(stage) for _ in range(stages)])


@EXAMPLES
@given(
    boxes=st.lists(sound_box(), min_size=1, max_size=6),
    deltas=st.lists(st.floats(-1e6, 1e6, width=32), min_size=8, max_size=8),
)
def test_chained_decode_clips_any_deltas_to_the_image(boxes, deltas):
    deltas = torch.tensor(deltas).expand(len(boxes), 8)
    decoded = coder(2).decode(tensor(boxes), deltas, max_shape=(100, 120))
    assert decoded.isfinite().all()
    x1, y1, x2, y2 = decoded.unbind(-1)
    assert (x1 >= 0).all()
    assert (y1 >= 0).all()
    assert (x2 <= 120).all()
    assert (y2 <= 100).all()
    assert (x2 >= x1).all()
    assert (y2 >= y1).all()


@EXAMPLES
@given(box=sound_box(), first=sound_box(), second=sound_box())
def test_chained_decode_inverts_encoding_by_stage(box, first, second):
    chain = coder(2)
    one = chain.stages[0].encode(tensor(box), tensor(first))
    two = chain.stages[1].encode(tensor(first), tensor(second))
    limit = abs(math.log(16 / 1000))
    if max(one[:, 2:].abs().max(), two[:, 2:].abs().max()) > limit:
        return  # the coder clamps growth beyond that, on purpose
    decoded = chain.decode(tensor(box), torch.cat([one, two], dim=1))
    torch.testing.assert_close(decoded, tensor(second), rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_chained_decode_passes_a_nan_through(value):
    """Clipping must not turn a NaN into a box that looks sound."""
    deltas = torch.zeros(2, 8)
    deltas[1, 0] = value
    decoded = coder(2).decode(tensor([[0, 0, 9, 9]] * 2), deltas)
    assert decoded[0].isfinite().all()
    assert not decoded[1].isfinite().all()
