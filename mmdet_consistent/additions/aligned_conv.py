"""Box-output convolution whose later stages sample features at the refined boxes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.task_modules.coders import BaseBBoxCoder
from torch import Tensor, nn

from ..heads.anchors import refine_boxes
from ..heads.box_output import StagedConv2d
from ..utils.device import without_autocast

SPANS = ('kernel', 'box')


# mmengine's initialisers read the names of a layer's direct bases only, hence the
# second base.
class AlignedConv2d(StagedConv2d, nn.Conv2d):
    """A :class:`StagedConv2d` whose later outputs use features aligned to Aᵏ.

    For anchor a at place q, weights W of stage k and kernel points p:

        tᵏ[a](q) = b + Σ_p W[a, p] · x(q + shift[a](q) + reach[a](q) ∘ p)    (1)

    in cells of the feature map, with x bilinear and 0 outside of it. ``shift`` is how
    far the centre of the refined box Aᵏ (detached) is from the anchor's, ``reach`` how
    far the kernel points are apart. An anchor's own centre counts as its place,
    wherever in the cell the generator puts it. While a box stays, shift is 0, and with
    ``span='kernel'`` reach is 1: then (1) is the ordinary convolution.

    Sampling is linear in x and therefore commutes with W. The products W[a, p] · x come
    first, from one 1 × 1 convolution with as many operations as the ordinary one. Then
    only their few channels per anchor and point are sampled, instead of all of x for
    each of the A anchors.

    Parameters and their names are those of :class:`StagedConv2d`.

    Args:
        conv: Staged convolution to replace.
        anchors: A⁰ of one cell, (A, 4), xyxy in pixels.
        stride: Pixels per cell, in x and y.
        bbox_coders: Box coder of each regression stage.
        span: ``'kernel'`` or ``'box'``; see :class:`AlignedFeatures`.

    Raises:
        ValueError: If the convolution does not have an odd kernel, or changes the size
            of the feature map.
    """

    anchors: Tensor
    points: Tensor
    per_pixel: Tensor

    def __init__(
        self,
        conv: StagedConv2d,
        anchors: Tensor,
        stride: tuple[float, float],
        bbox_coders: Sequence[BaseBBoxCoder],
        span: str = 'kernel',
    ) -> None:
        _check_kernel(conv)
        super().__init__(conv, [])
        self.later_stages = conv.later_stages
        self.stride_in_pixels = (float(stride[0]), float(stride[1]))
        self.bbox_coders = list(bbox_coders)
        radius = [size // 2 for size in self.kernel_size]
        rows, columns = (torch.arange(-r, r + 1.0) for r in radius)
        points = torch.stack(torch.meshgrid(columns, rows, indexing='xy'), dim=-1)
        anchors = anchors.float()
        # A box's size in pixels times this is its reach in cells: the kernel's own step
        # for a box as large as the anchor, or the distance to the box's border.
        if span == 'kernel':
            step = anchors.new_tensor([self.dilation[1], self.dilation[0]])
            per_pixel = step / (anchors[:, 2:] - anchors[:, :2])
        else:
            half = anchors.new_tensor([max(r, 1) for r in radius[::-1]]) * 2
            per_pixel = (1 / (half * anchors.new_tensor(self.stride_in_pixels))).repeat(
                len(anchors), 1
            )
        # Not saved: the config determines them.
        self.register_buffer('anchors', anchors.clone(), persistent=False)
        self.register_buffer('points', points.flatten(0, 1), persistent=False)
        self.register_buffer('per_pixel', per_pixel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the deltas of all stages, and the additions' values.

        Args:
            x: Features, (N, C, H, W).

        Returns:
            (N, A·D, H, W), in the layout of :class:`StagedConv2d`. The additions'
            values are aligned to the final boxes.
        """
        outputs: list = [self._conv_forward(x, self.weight, self.bias)]
        # One row per anchor and place, places innermost. Shapes are written out and
        # nothing is expanded, since tracing would fix the sizes.
        batch, height, width = x.shape[0], *x.shape[-2:]
        cell = self.anchors.float()[None, :, None]
        boxes = cell.repeat(batch, 1, height * width, 1).reshape(batch, -1, 4)
        valid = torch.ones((), dtype=torch.bool, device=x.device)
        for coder, stage in zip(self.bbox_coders, self.later_stages):
            deltas = outputs[-1].detach().reshape(batch, -1, 4, height, width)
            deltas = deltas.permute(0, 1, 3, 4, 2).reshape(batch, -1, 4)
            boxes, _ = refine_boxes(coder, boxes, valid, deltas)
            points = self._sampling_points(boxes, height, width)
            aligned = self._aligned(x, stage, points)
            outputs.append(aligned.to(outputs[0].dtype))
        split = [values.unflatten(1, (self.num_anchors, -1)) for values in outputs]
        return torch.cat(split, dim=2).flatten(1, 2)

    @torch.no_grad()
    def _sampling_points(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Locate each anchor's kernel points in the coordinates of ``grid_sample``.

        Args:
            boxes: Aᵏ relative to its cell, (N, A·H·W, 4), xyxy in pixels.
            height: H.
            width: W.

        Returns:
            (N·A·P, H, W, 2) for P kernel points, x before y, float32.
        """
        boxes = boxes.reshape(-1, self.num_anchors, height, width, 4)
        low, high = boxes[..., :2], boxes[..., 2:]
        anchors = self.anchors.float()
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2
        shift = (low + high) / 2 - centre[:, None, None]
        reach = (high - low) * self.per_pixel.float()[:, None, None]
        axes = []
        for axis, size in enumerate((width, height)):
            place = torch.arange(size, device=boxes.device, dtype=boxes.dtype)
            place = place if axis == 0 else place[:, None]
            middle = place + shift[..., axis] / self.stride_in_pixels[axis]
            steps = self.points[:, axis].float()[:, None, None]
            points = middle[:, :, None] + reach[:, :, None, ..., axis] * steps
            # A point that is a cell or more outside samples 0, and so does ±4.
            axes.append(((points * 2 + 1) / size - 1).clamp(-4, 4))
        return torch.stack(axes, dim=-1).flatten(0, 2)

    def _aligned(self, x: Tensor, stage: Any, points: Tensor) -> Tensor:
        """Compute one later stage's output by (1).

        Args:
            x: (N, C, H, W).
            stage: Weights of D values per anchor.
            points: See :meth:`_sampling_points`.

        Returns:
            (N, A·D, H, W), float32.
        """
        # (A·D, C, kh, kw) to (A·P·D, C, 1, 1).
        weight = stage.weight.unflatten(0, (self.num_anchors, -1)).flatten(3)
        values = weight.shape[1]
        weight = weight.permute(0, 3, 1, 2).flatten(0, 2)[..., None, None]
        height, width = x.shape[-2:]
        products = F.conv2d(x, weight)  # as precise as the ordinary convolution
        with without_autocast(x):
            sampled = F.grid_sample(
                products.float().reshape(-1, values, height, width),
                points,
                mode='bilinear',
                padding_mode='zeros',
                align_corners=False,
            )
            sampled = sampled.reshape(
                -1, self.num_anchors, len(self.points), values, height, width
            )
            summed = sampled.sum(dim=2).flatten(1, 2)
            return summed + stage.bias.float()[:, None, None]


def _check_kernel(conv: nn.Conv2d) -> None:
    """Raise if a convolution does not have one place per output."""
    same = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size))
    rules = (
        ('kernel_size', conv.kernel_size, 'odd', all(k % 2 for k in conv.kernel_size)),
        ('stride', conv.stride, '1', set(conv.stride) == {1}),
        ('padding', conv.padding, f'{same}', conv.padding == same),
        ('padding_mode', conv.padding_mode, "'zeros'", conv.padding_mode == 'zeros'),
        ('groups', conv.groups, '1', conv.groups == 1),
    )
    for name, value, rule, holds in rules:
        if not holds:
            raise ValueError(
                f'AlignedFeatures needs box outputs with {name} {rule}, got {value}: '
                'change the head, or remove AlignedFeatures'
            )
