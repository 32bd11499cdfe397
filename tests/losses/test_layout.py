import pytest
import torch

from mmdet_consistent.losses import layout as level_rows
from tests.support.builders import (
    as_scalars,
    build_head,
    features,
    ground_truth,
    metas,
    total_loss,
)
from tests.support.ssd_builders import build_ssd_head, ssd_features

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize('layout', LAYOUTS)
def test_class_rows_and_anchor_rows_have_the_same_order(layout):
    images, anchors, classes, height, width = 2, 3, 4, 5, 6
    scores = torch.randn(images, anchors * classes, height, width)
    scores = scores.contiguous(memory_format=layout)
    flat = level_rows.flatten_levels([scores], classes)  # mmdet's order
    rows = level_rows.class_rows(scores, classes)
    assert rows.data_ptr() == scores.data_ptr()  # a view, not a copy
    values = flat.sum(dim=-1)[None]
    placed = level_rows.anchor_rows(values, scores, classes)
    torch.testing.assert_close(rows.sum(dim=1)[None], placed)
    back = level_rows.mmdet_order(placed, scores)
    assert torch.equal(back, values)


def test_split_levels_keeps_the_order_of_levels():
    levels = [torch.randn(2, 6, 4, 4), torch.randn(2, 6, 2, 3)]
    values = torch.arange(2 * (32 + 12)).view(1, 2, 44)
    first, second = level_rows.split_levels(values, levels, 3)
    assert first.shape == (1, 4, 16)
    assert second.shape == (1, 4, 6)
    assert torch.equal(first[0, 0], values[0, 0, 0:32:2])
    assert torch.equal(second[0, 3], values[0, 1, 33:44:2])


@pytest.mark.parametrize(
    ('build', 'inputs'), [(build_head, features), (build_ssd_head, ssd_features)]
)
def test_channels_last_training_equals_contiguous_training(build, inputs):
    results = []
    for layout in LAYOUTS:
        head = build().to(memory_format=layout)
        levels = [x.contiguous(memory_format=layout) for x in inputs()]
        outputs = head(levels)
        assert level_rows.is_channels_last(outputs[0][0]) == (
            layout is torch.channels_last
        )
        losses = as_scalars(head.loss_by_feat(*outputs, ground_truth(), metas()))
        total_loss(losses).backward()
        grads = {name: p.grad for name, p in head.named_parameters()}
        results.append(({k: v.detach() for k, v in losses.items()}, grads))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
