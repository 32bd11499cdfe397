"""The box output convolution that serves several regression stages."""

import torch
from torch import Tensor, nn


class LaterStage(nn.Module):
    """Weight and bias of one later regression stage.

    Not an ``nn.Conv2d`` on purpose: the base head's initialiser walks over all
    convolutions, and this one has to start as the identity.

    Args:
        conv: The first stage's convolution, whose shape is taken over.
        identity_deltas: Shape (4,), the deltas that leave a box where it is.
    """

    def __init__(self, conv: nn.Conv2d, identity_deltas: Tensor) -> None:
        super().__init__()
        num_anchors = conv.out_channels // 4
        self.weight = nn.Parameter(torch.zeros_like(conv.weight))
        self.bias = nn.Parameter(identity_deltas.to(conv.weight).repeat(num_anchors))


class StagedConv2d(nn.Conv2d):
    """A box output convolution with one set of deltas per regression stage.

    ``weight`` and ``bias`` are the first stage's and keep the base head's
    names, so a baseline's checkpoint loads; ``later_stages`` hold the others.
    All stages are computed by one convolution.

    Args:
        conv: The base head's box output with A·4 output channels.
        identity_deltas: One (4,) tensor for each later stage: its coder's
            encoding of "stay where you are". The weights start at zero, so a
            fresh later stage returns exactly these.
    """

    def __init__(self, conv: nn.Conv2d, identity_deltas: list[Tensor]) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
        )
        self.weight = conv.weight
        self.bias = conv.bias
        self.later_stages = nn.ModuleList(
            LaterStage(conv, deltas) for deltas in identity_deltas
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the deltas of all stages.

        Args:
            x: Features, shape (N, C, H, W).

        Returns:
            Deltas, shape (N, A·S·4, H, W); the channels run over anchors, then
            stages, then the four deltas, so that ``reshape(-1, S * 4)`` after
            mmdet's permutation gives one row per anchor.
        """
        first_bias = self.bias
        if first_bias is None:
            first_bias = self.weight.new_zeros(self.out_channels)
        stages = [(self.weight, first_bias)]
        stages += [(stage.weight, stage.bias) for stage in self.later_stages]
        weight = torch.stack([w.unflatten(0, (-1, 4)) for w, _ in stages], dim=1)
        bias = torch.stack([b.unflatten(0, (-1, 4)) for _, b in stages], dim=1)
        return self._conv_forward(x, weight.flatten(0, 2), bias.flatten())


def replace_box_output(
    parent: nn.Module, name: str, identity_deltas: list[Tensor]
) -> None:
    """Put a :class:`StagedConv2d` in place of ``parent.<name>``."""
    setattr(parent, name, StagedConv2d(getattr(parent, name), identity_deltas))
