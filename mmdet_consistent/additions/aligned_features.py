"""Later regressions on features aligned to the refined anchors."""

from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from ..heads.addition import Addition
from ..heads.anchors import refine_boxes
from .aligned_conv import SPANS, AlignedConv2d

# How far the same deltas may move the anchors of two levels apart, in cells.
TOLERANCE = 1e-3


@MODELS.register_module()
class AlignedFeatures(Addition):
    """Aligns the features of the second and later regressions to the refined anchors.

    After the first regression a box is elsewhere, but the second one still sees the
    surroundings of its prior anchor. With this addition, the points of its
    convolution's kernel move and stretch along with the box, as in Cascade RPN (Vu et
    al., 2019), AlignDet (Chen et al., 2019) and S²A-Net (Han et al., 2020).
    :class:`AlignedConv2d` has the equation and its cost. Stage k is aligned to Aᵏ,
    detached: no gradient flows through the sampling points. The values of other
    additions are aligned to the final boxes. The classification output does not change:
    one for all stages.

    Parameters and their names are those of the plain consistent head, so that either's
    checkpoint loads into the other.

    Args:
        span: ``'kernel'``: the kernel points are one cell apart, times the refined
            box's width and height over the anchor's. Where a box stays, that is the
            ordinary convolution, which a plain head has learnt. ``'box'``: the points
            lie on the refined box, the outer ones of a 3 × 3 kernel on its border, as
            in Cascade RPN.

    Raises:
        ValueError: If ``span`` is neither, the head has nothing to align, or its levels
            share a box output for differently sized anchors.
    """

    def __init__(self, span: str = 'kernel') -> None:
        super().__init__()
        if span not in SPANS:
            raise ValueError(
                f'AlignedFeatures.span must be one of {SPANS}, got {span!r}'
            )
        self.span = span

    def attach(self, head: Any) -> None:
        """Replace each box output by an :class:`AlignedConv2d`."""
        if head.reg_stages == 1 and not head.num_extra:
            raise ValueError(
                'AlignedFeatures has nothing to align with reg_stages=1: set '
                'reg_stages to 2, or remove AlignedFeatures'
            )
        generator = head.prior_generator
        outputs = head.box_output_layers()
        levels = range(generator.num_levels)
        if len(outputs) == 1:
            served = [list(levels)]
        elif len(outputs) == len(levels):
            served = [[level] for level in levels]
        else:
            raise ValueError(
                f'AlignedFeatures needs one box output for all {len(levels)} levels or '
                f'one per level, {type(head).__name__} has {len(outputs)}: remove it'
            )
        for (parent, name), own in zip(outputs, served):
            _check_same_cells(head, own)
            conv = AlignedConv2d(
                getattr(parent, name),
                get_box_tensor(generator.base_anchors[own[0]]),
                generator.strides[own[0]],
                [stage.bbox_coder for stage in head.stages[: head.reg_stages]],
                self.span,
            )
            setattr(parent, name, conv)


def _check_same_cells(head: Any, levels: list[int]) -> None:
    """Raise if the same deltas mean different moves, in cells, on two levels.

    They do if anchors do not grow with the stride, or a coder counts in pixels.
    """
    first, *others = levels
    stages = range(head.reg_stages + 1)
    own = [_in_cells(head, first, stage) for stage in stages]
    for level in others:
        theirs = [_in_cells(head, level, stage) for stage in stages]
        if all(
            a.shape == b.shape and torch.allclose(a, b, atol=TOLERANCE)
            for a, b in zip(own, theirs)
        ):
            continue
        raise ValueError(
            f'AlignedFeatures: levels {first} and {level} share a box output, but '
            'the same deltas mean different moves on them, in cells of stride '
            f'{head.prior_generator.strides[first]} and '
            f'{head.prior_generator.strides[level]}: give anchor_generator scales '
            'that it multiplies by the stride (octave_base_scale, or scales without '
            'base_sizes) and use a box coder that does not count in pixels '
            '(DeltaXYWHBBoxCoder without add_ctr_clamp)'
        )


def _in_cells(head: Any, level: int, stage: int) -> Tensor:
    """Return a cell's anchors, or where a probe moves them: (A, 4), in cells.

    Args:
        head: The consistent head.
        level: Level of the anchors.
        stage: 0 for the anchors themselves, else 1 + the stage that moves them.
    """
    boxes = get_box_tensor(head.prior_generator.base_anchors[level]).float()
    centre = (boxes[:, :2] + boxes[:, 2:]).repeat(1, 2) / 2
    if stage > 0:
        # A move that is large enough to reach a limit in pixels.
        start = boxes.new_tensor([[0.0, 0.0, 64.0, 64.0]])
        coder = head.stages[stage - 1].bbox_coder
        deltas = coder.encode(start, start + 64).repeat(len(boxes), 1)
        valid = torch.ones((), dtype=torch.bool)
        moved, _ = refine_boxes(coder, boxes[None], valid, deltas[None])
        boxes = moved[0]
    return (boxes - centre) / boxes.new_tensor(head.prior_generator.strides[level] * 2)
