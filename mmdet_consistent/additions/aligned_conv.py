"""A box output whose later stages look where the boxes have got to."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..heads.box_output import LaterStage, StagedConv2d

# refine(k, Aᵏ⁻¹, usable, tᵏ⁻¹) gives Aᵏ and usable, as a consistent head does.
Refine = Callable[[int, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

SPANS = ('kernel', 'box')


# mmengine's initialisers look at the names of a layer's direct bases only, hence the
# second one.
class AlignedConv2d(StagedConv2d, nn.Conv2d):
    """A :class:`StagedConv2d` with later outputs from features aligned to Aᵏ.

    For anchor a of place q, weights W of stage k and kernel points p:

        tᵏ[a](q) = b + Σ_p W[a, p] · x(q + shift[a](q) + reach[a](q) ∘ p)    (1)

    in cells of the feature map, x bilinear and 0 outside of it: ``shift`` is how far
    the centre of the refined box Aᵏ (detached) is from the anchor's, ``reach`` how
    far the kernel's points are apart. An anchor's own centre counts as its place,
    wherever in the cell the generator puts it. While a box stays, shift is 0, and with
    ``span='kernel'`` reach is 1: (1) is the ordinary convolution then.

    Sampling is linear in x and so changes places with W: the products W[a, p] · x
    come first, from one 1 × 1 convolution with as many operations as the ordinary
    one. Sampled are then its few channels for each anchor and point, rather than all
    of x for each of the A anchors.

    Parameters and their names are :class:`StagedConv2d`'s.

    Args:
        conv: The staged convolution to take the place of.
        anchors: A⁰ of one cell, (A, 4), xyxy in pixels.
        stride: Pixels a cell, in x and y.
        refine: Decodes a stage's deltas; see ``ConsistentMixin.refine``.
        span: ``'kernel'`` or ``'box'``; see :class:`AlignedFeatures`.

    Raises:
        ValueError: If the convolution isn't an odd kernel's that keeps the size.
    """

    def __init__(
        self,
        conv: StagedConv2d,
        anchors: Tensor,
        stride: tuple[float, float],
        refine: Refine,
        span: str = 'kernel',
    ) -> None:
        _check_kernel(conv)
        super().__init__(conv, [])
        self.later_stages = conv.later_stages
        self.stride_in_pixels = (float(stride[0]), float(stride[1]))
        self.refine = refine
        radius = [size // 2 for size in self.kernel_size]
        rows, columns = (torch.arange(-r, r + 1.0) for r in radius)
        points = torch.stack(torch.meshgrid(columns, rows, indexing='xy'), dim=-1)
        anchors = anchors.float()
        # A box's size in pixels, times this, is its reach in cells: the kernel's own
        # step if the box is as large as the anchor, or as far as the box's border.
        if span == 'kernel':
            step = anchors.new_tensor([self.dilation[1], self.dilation[0]])
            per_pixel = step / (anchors[:, 2:] - anchors[:, :2])
        else:
            half = anchors.new_tensor([max(r, 1) for r in radius[::-1]]) * 2
            per_pixel = (1 / (half * anchors.new_tensor(self.stride_in_pixels))).repeat(
                len(anchors), 1
            )
        # Not in the file: what they hold is the config's.
        self.register_buffer('anchors', anchors.clone(), persistent=False)
        self.register_buffer('points', points.flatten(0, 1), persistent=False)
        self.register_buffer('per_pixel', per_pixel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the deltas of all stages, and the additions' values.

        Args:
            x: Features, shape (N, C, H, W).

        Returns:
            Shape (N, A·(S·4 + E), H, W), laid out as :class:`StagedConv2d`'s. The E
            values are aligned to the final boxes.
        """
        outputs = [self._conv_forward(x, self.weight, self.bias)]
        # A row an anchor and place, places inside. Shapes are spelt out and nothing is
        # expanded: tracing would fix the sizes.
        batch, height, width = x.shape[0], *x.shape[-2:]
        cell = self.anchors.float()[None, :, None]
        boxes = cell.repeat(batch, 1, height * width, 1).reshape(batch, -1, 4)
        usable = torch.ones((), dtype=torch.bool, device=x.device)
        for number, stage in enumerate(self.later_stages, start=1):
            deltas = outputs[-1].detach().reshape(batch, -1, 4, height, width)
            deltas = deltas.permute(0, 1, 3, 4, 2).reshape(batch, -1, 4)
            boxes, _ = self.refine(number, boxes, usable, deltas)
            points = self._sampling_points(boxes, height, width)
            aligned = self._aligned(x, stage, points)
            outputs.append(aligned.to(outputs[0].dtype))
        split = [values.unflatten(1, (self.num_anchors, -1)) for values in outputs]
        return torch.cat(split, dim=2).flatten(1, 2)

    @torch.no_grad()
    def _sampling_points(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Where each anchor's kernel points fall, as ``grid_sample`` counts.

        Args:
            boxes: Aᵏ around its cell, (N, A·H·W, 4), xyxy in pixels.
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
            # Everything that is a cell or more outside is 0 alike; ±4 is.
            axes.append(((points * 2 + 1) / size - 1).clamp(-4, 4))
        return torch.stack(axes, dim=-1).flatten(0, 2)

    def _aligned(self, x: Tensor, stage: LaterStage, points: Tensor) -> Tensor:
        """One later stage's output by Eq. 1.

        Args:
            x: (N, C, H, W).
            stage: Weights for D values an anchor.
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
        with torch.autocast(x.device.type, enabled=False):
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
    """Raise on a convolution that has no place for each output."""
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
                'change the head, or leave AlignedFeatures out'
            )
