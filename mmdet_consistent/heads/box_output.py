"""The box output convolution that serves several regression stages."""

import torch
from torch import Tensor, nn


class LaterStage(nn.Module):
    """Weight and bias of one later output.

    Not an ``nn.Conv2d`` on purpose: the base head's initialiser walks over all
    convolutions, and this one has to start as a constant.

    Args:
        conv: The first stage's convolution, whose inputs are the same.
        num_anchors: A.
        values: Shape (D,), what it gives for each anchor at first: of a regression
            stage, the deltas that leave a box where it is.
    """

    def __init__(self, conv: nn.Conv2d, num_anchors: int, values: Tensor) -> None:
        super().__init__()
        self.start = values.to(conv.weight).repeat(num_anchors)
        size = (len(self.start), *conv.weight.shape[1:])
        self.weight = nn.Parameter(conv.weight.new_zeros(size))
        self.bias = nn.Parameter(self.start.clone())

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the constant."""
        self.weight.zero_()
        self.bias.copy_(self.start)


class StagedConv2d(nn.Conv2d):
    """A box output convolution with one set of deltas per regression stage.

    ``weight`` and ``bias`` are the first stage's and keep the base head's
    names, so a baseline's checkpoint loads; ``later_stages`` hold the others, then
    the additions' values. All are computed by one convolution.

    Args:
        conv: The base head's box output with A·4 output channels.
        identity_deltas: One (4,) tensor for each later stage: its coder's
            encoding of "stay where you are". The weights start at zero, so a
            fresh later stage returns exactly these.
        extra_values: E, values of the additions for each anchor; they start at 0.
        first_values: Values for each anchor that ``conv`` gives, if not 4 deltas.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        identity_deltas: list[Tensor],
        extra_values: int = 0,
        first_values: int = 4,
    ) -> None:
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
        self.num_anchors = conv.out_channels // first_values
        values = [*identity_deltas]
        if extra_values:
            values.append(torch.zeros(extra_values))
        self.later_stages = nn.ModuleList(
            LaterStage(conv, self.num_anchors, value) for value in values
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the deltas of all stages, and the additions' values.

        Args:
            x: Features, shape (N, C, H, W).

        Returns:
            Shape (N, A·(S·4 + E), H, W); the channels run over anchors, then
            stages, then the four deltas, then the extra values, so that a
            ``reshape(-1, S * 4 + E)`` after mmdet's permutation gives one row per
            anchor.
        """
        first_bias = self.bias
        if first_bias is None:
            first_bias = self.weight.new_zeros(self.out_channels)
        outputs = [(self.weight, first_bias)]
        outputs += [(stage.weight, stage.bias) for stage in self.later_stages]
        weight, bias = (
            torch.cat([x.unflatten(0, (self.num_anchors, -1)) for x in part], dim=1)
            for part in zip(*outputs)
        )
        return self._conv_forward(x, weight.flatten(0, 1), bias.flatten())


def replace_box_output(
    parent: nn.Module, name: str, identity_deltas: list[Tensor], *sizes: int
) -> None:
    """Put a :class:`StagedConv2d` in place of ``parent.<name>``."""
    conv = getattr(parent, name)
    setattr(parent, name, StagedConv2d(conv, identity_deltas, *sizes))
