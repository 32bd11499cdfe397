"""Box outputs of a consistent head: where their channels are made, and where split.

A box output has shape (N, A·D, H, W). For each of A anchors, its D channels are

    the base head's own (4 deltas, unless it predicts something else),
    4 deltas of each later one of S regression stages,
    E values of the additions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional

import torch
from torch import Tensor, nn


def split_outputs(levels: list[Tensor], sizes: list[int]) -> list[list[Tensor]]:
    """Split box outputs into the base head's, later stages' and additions' parts.

    Args:
        levels: Box outputs, (N, A·D, H, W).
        sizes: Channels per anchor of each part; their sum is D.

    Returns:
        For each part, levels of (N, A, size, H, W).
    """
    split = [x.unflatten(1, (-1, sum(sizes))).split(sizes, dim=2) for x in levels]
    return [list(part) for part in zip(*split)]


class LaterOutput(nn.Module):
    """Weight and bias of one later output.

    Not an ``nn.Conv2d`` on purpose: the base head's initialiser visits every
    convolution, and this output has to start as a constant.

    Args:
        conv: The first stage's convolution, which has the same inputs.
        num_anchors: A.
        values: Initial output per anchor, (D,): for a regression stage, the deltas that
            leave a box unchanged.
    """

    def __init__(self, conv: nn.Conv2d, num_anchors: int, values: Tensor) -> None:
        super().__init__()
        self.start = values.to(conv.weight).repeat(num_anchors)
        size = (len(self.start), *conv.weight.shape[1:])
        self.weight = nn.Parameter(conv.weight.new_zeros(size))
        self.bias = nn.Parameter(self.start.clone())

    @torch.no_grad()
    def reset(self) -> None:
        """Restore the constant initial output."""
        self.weight.zero_()
        self.bias.copy_(self.start)


class StagedConv2d(nn.Conv2d):
    """Box-output convolution with one set of deltas per regression stage.

    ``weight`` and ``bias`` are the first stage's and keep the base head's names, so
    that a baseline's checkpoint loads. ``later_stages`` holds the other outputs: the
    later stages' deltas, then the additions' values. One convolution computes them all.

    Args:
        conv: The base head's box output.
        identity_deltas: For each later stage, its coder's encoding of an unchanged box,
            (4,). The weights start at zero, so that a fresh later stage returns exactly
            these.
        extra_values: E; these values start at 0.
        first_values: Channels per anchor of ``conv``.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        identity_deltas: list[Tensor],
        extra_values: int = 0,
        first_values: int = 4,
    ) -> None:
        geometry = ('kernel_size', 'stride', 'padding', 'dilation', 'groups')
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            device='meta',  # draws no random numbers: later modules stay the same
            **{name: getattr(conv, name) for name in geometry},
        )
        self.weight = conv.weight
        self.bias = conv.bias
        self.num_anchors = conv.out_channels // first_values
        values = [*identity_deltas]
        if extra_values:
            values.append(torch.zeros(extra_values))
        self.later_stages = nn.ModuleList(
            LaterOutput(conv, self.num_anchors, value) for value in values
        )
        self.kept: Optional[tuple[Tensor, Tensor]] = None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the deltas of all stages, and the additions' values.

        Args:
            x: Features, (N, C, H, W).

        Returns:
            (N, A·D, H, W). After mmdet's permutation, ``reshape(-1, D)`` gives one row
            per anchor.
        """
        return self._conv_forward(x, *(self.kept or self.joined()))

    def joined(self) -> tuple[Tensor, Tensor]:
        """Join weight and bias of all outputs."""
        first_bias = self.bias
        if first_bias is None:
            first_bias = self.weight.new_zeros(self.out_channels)
        outputs: list = [(self.weight, first_bias)]
        outputs += [(stage.weight, stage.bias) for stage in self.later_stages]
        weight, bias = (
            torch.cat([x.unflatten(0, (self.num_anchors, -1)) for x in part], dim=1)
            for part in zip(*outputs)
        )
        return weight.flatten(0, 1), bias.flatten()


@contextmanager
def joined_once(module: nn.Module) -> Iterator[None]:
    """Join the weights of each staged convolution once, not at each call."""
    staged = [m for m in module.modules() if isinstance(m, StagedConv2d)]
    try:
        for conv in staged:
            conv.kept = conv.joined()
        yield
    finally:
        for conv in staged:
            conv.kept = None


def reset_later_outputs(module: nn.Module) -> None:
    """Make every later stage below a module leave boxes unchanged."""
    for child in module.modules():
        if isinstance(child, LaterOutput):
            child.reset()


def stack_deltas(stages: Sequence[Tensor]) -> Tensor:
    """Join the deltas of separate towers, (N, A·4, H, W) each, to (N, A·S·4, H, W)."""
    split = [deltas.unflatten(1, (-1, 4)) for deltas in stages]
    return torch.stack(split, dim=2).flatten(1, 3)
