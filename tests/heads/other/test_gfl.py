"""GFL's later stages: distributions first, deltas of the boxes at their means later."""

import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.models.task_modules.coders import DistancePointBBoxCoder

from mmdet_consistent import make_consistent
from mmdet_consistent.heads.other.gfl import AnchorDistanceBBoxCoder
from tests.support import other_heads
from tests.support.other_heads import build_consistent, two_boxes


def gfl_with_outputs(seed=3):
    """A small GFL head and outputs of which no stage is trivial."""
    head = build_consistent('GFLHead')
    generator = torch.Generator().manual_seed(seed)
    cls, reg = head(other_heads.features(head))
    reg = [torch.randn(x.shape, generator=generator) * 0.5 for x in reg]
    return head, cls, reg


def naive_gfl_box(head, anchor, stride, values):
    """Means of four distributions, then one set of deltas: a box, in loops."""
    size = head.reg_max + 1
    sides = []
    for side in range(4):
        logits = values[side * size : side * size + size].double()
        weights = logits.exp() / logits.exp().sum()
        sides.append(sum(i * float(w) for i, w in enumerate(weights)) * stride)
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    first = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
    dx, dy, dw, dh = (float(v) for v in values[4 * size :])
    width, height = first[2] - first[0], first[3] - first[1]
    x = (first[0] + first[2]) / 2 + dx * width
    y = (first[1] + first[3]) / 2 + dy * height
    width, height = width * 2.718281828459045**dw, height * 2.718281828459045**dh
    return first, [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def test_gfl_stages_equal_the_naive_decode():
    head, cls, reg = gfl_with_outputs()
    anchors = head.prior_generator.grid_priors(other_heads.sizes(head), device='cpu')
    composed = head.composed_deltas(cls, reg)
    stages = head.split_preds(reg)
    deltas = head.first_stage_deltas(stages[0])
    for level in (1, 4):
        stride = head.prior_generator.strides[level][0]
        height, width = other_heads.sizes(head)[level]
        boxes = anchors[level].view(height, width, 4)
        for y, x in ((0, 0), (height - 1, width // 2)):
            anchor = boxes[y, x].tolist()
            first, last = naive_gfl_box(head, anchor, stride, reg[level][1, :, y, x])
            for expected, distances in (
                (first, deltas[level][1, :, y, x]),
                (last, composed[level][1, :, y, x] * stride),
            ):
                actual = head.stages[0].bbox_coder.decode(
                    boxes[y, x][None], distances[None]
                )
                torch.testing.assert_close(
                    actual[0], torch.tensor(expected), atol=2e-3, rtol=1e-4
                )


def test_anchor_distance_coder_equals_mmdets_point_coder():
    coder, mmdets = AnchorDistanceBBoxCoder(), DistancePointBBoxCoder()
    anchors = torch.tensor([[0.0, 0, 40, 20], [10, 10, 30, 50], [60, 0, 80, 20]])
    points = torch.tensor([[20.0, 10], [20, 30], [70, 10]])
    boxes = torch.tensor([[5.0, 2, 35, 18], [0, 0, 60, 60], [61, 1, 90, 9]])
    distances = mmdets.encode(points, boxes)
    for places in (points, anchors):
        assert torch.equal(coder.encode(places, boxes), distances)
        cut = coder.encode(places, boxes, 12.0, eps=0.5)
        assert torch.equal(cut, mmdets.encode(points, boxes, 12.0, eps=0.5))
        assert torch.equal(coder.encode(places, boxes, max_dis=12.0, eps=0.5), cut)
        inside = mmdets.decode(points, distances, max_shape=(40, 50))
        assert torch.equal(coder.decode(places, distances, (40, 50)), inside)
        batch = coder.decode(places.expand(2, *places.shape), distances.expand(2, 3, 4))
        assert torch.equal(batch[1], mmdets.decode(points, distances))


def test_gfl_head_keeps_its_own_options():
    config = other_heads.small_config('GFLHead')
    arguments = {k: v for k, v in config.items() if k not in ('type', 'num_classes')}
    made = make_consistent(GFLHead)
    coder = dict(type='DistancePointBBoxCoder', clip_border=False)
    head = made(5, **{**arguments, 'bbox_coder': coder})
    assert head.num_classes == 5
    assert head.stages[0].bbox_coder.clip_border is False
    plain = made(5, variant='baseline', **arguments)
    assert len(plain.additions) == 0
    assert plain.num_stages == 1
    own = dict(type='QualityTargets', boxes='next')
    head = made(5, additions=[own], **arguments)
    assert [addition.boxes for addition in head.additions] == ['next']
    head = made(5, additions=[dict(type='SoftLabels')], **arguments)
    kinds = [type(addition).__name__ for addition in head.additions]
    assert kinds == ['QualityTargets', 'SoftLabels']


def test_gfl_later_labels_get_the_quality_of_the_last_box():
    head = build_consistent('GFLHead')
    assert [type(x).__name__ for x in head.additions] == ['QualityTargets']
    outputs = head(other_heads.features(head))
    gts = two_boxes()
    seen = {}
    plain = head.label_losses

    def watch(levels, stages, targets):
        seen.update(zip([stage.index for stage in stages], targets))
        return plain(levels, stages, targets)

    head.label_losses = watch
    head.loss_by_feat(*outputs, gts, other_heads.metas(), None)
    assert list(seen) == [1]  # stage 0 is GFL's own
    quality = seen[1].quality
    assert (quality[~seen[1].positive] == 0).all()
