"""The matching kernels equal the eager search, bit for bit, ties included."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_consistent.task_modules import MatchRule, dense_search
from tests.support.kernels import DEVICE, require_triton

require_triton()
from mmdet_consistent.task_modules import match_kernel  # noqa: E402  needs Triton


def boxes_with_ties(generator, *shape):
    """Boxes on a coarse grid: many overlaps are equal, and some boxes have no area."""
    low = torch.randint(0, 10, (*shape, 2), generator=generator) * 8
    size = torch.randint(0, 6, (*shape, 2), generator=generator) * 8
    return torch.cat([low, low + size], dim=-1).float()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    num_boxes=st.integers(1, 600),
    max_gts=st.integers(1, 6),
    shared=st.booleans(),
    planes=st.booleans(),
    exclude=st.booleans(),
    rule=st.builds(
        MatchRule,
        pos_iou_thr=st.sampled_from([0.5, 0.6]),
        neg_iou_thr=st.sampled_from([0.4, 0.5]),
        match_low_quality=st.booleans(),
        min_pos_iou=st.sampled_from([0.0, 0.3]),
        gt_max_assign_all=st.booleans(),
    ),
)
def test_search_by_kernel_equals_the_eager_search(
    seed, images, num_boxes, max_gts, shared, planes, exclude, rule
):
    generator = torch.Generator().manual_seed(seed)
    boxes = boxes_with_ties(generator, 1 if shared else images, num_boxes)
    if planes:  # as decoding leaves them
        boxes = boxes.movedim(-1, 0).contiguous().movedim(0, -1)
    counts = torch.randint(0, max_gts + 1, (images,), generator=generator)
    gts = boxes_with_ties(generator, images, max_gts)
    gts *= (torch.arange(max_gts) < counts[:, None])[..., None]
    excluded = None
    if exclude:
        excluded = torch.rand(images, num_boxes, generator=generator) < 0.2
        excluded = excluded.to(DEVICE)
    inputs = boxes.to(DEVICE), gts.to(DEVICE), counts.to(DEVICE), rule, excluded
    ours, best = match_kernel.search_by_kernel(*inputs)
    eager, expected_best = dense_search.search_all(*inputs)
    has_gts = (counts > 0).to(DEVICE)
    assert torch.equal(ours[has_gts], eager[has_gts])
    assert torch.equal(best[has_gts], expected_best[has_gts])
