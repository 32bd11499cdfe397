"""What a cascade's later stages have of their own (Figure 4 b and c)."""

import copy
from collections.abc import Sequence
from typing import NamedTuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANTS = ('baseline', 'cascade', 'gated_cascade', 'consistent')


class Variant(NamedTuple):
    """Which of Figure 4's detectors, and what the paper leaves open of it.

    Attributes:
        type: ``'baseline'`` (a), ``'cascade'`` (b), ``'gated_cascade'`` (c) or
            ``'consistent'`` (d).
        scores: A cascade's scores at inference: ``'mean'`` of the stages'
            probabilities, or the ``'last'`` stage's.
        gate: How (c) lets the previous tower's features in: ``'pixel'``, by a
            1 × 1 convolution of both features, or ``'channel'``, by one number
            a channel; a sigmoid follows.
    """

    type: str
    scores: str = 'mean'
    gate: str = 'pixel'

    @property
    def own_towers(self) -> bool:
        """Whether later stages have towers and outputs of their own."""
        return self.type in ('cascade', 'gated_cascade')

    @classmethod
    def check(cls, value: Union[str, dict]) -> 'Variant':
        """Read the option.

        Raises:
            ValueError: Naming the field, its value and the way out.
        """
        fields = {'type': value} if isinstance(value, str) else value
        if not isinstance(fields, dict) or 'type' not in fields:
            raise ValueError(
                f'variant must be one of {VARIANTS}, or a dict with such a type, '
                f'got {value!r}'
            )
        choices = dict(
            type=VARIANTS, scores=('mean', 'last'), gate=('pixel', 'channel')
        )
        for name, chosen in fields.items():
            if name not in choices:
                raise ValueError(
                    f'variant={value!r} has an unknown option {name!r}; '
                    f'there are {tuple(choices)}'
                )
            if chosen not in choices[name]:
                where = 'variant' if isinstance(value, str) else f'variant.{name}'
                raise ValueError(
                    f'{where} must be one of {choices[name]}, got {chosen!r}'
                )
        return cls(**fields)


class FeatureGate(nn.Module):
    """x + σ(gate) · previous: as much of a tower's features as helps.

    Args:
        in_channels: Channels of x.
        channels: Channels of the previous tower's features.
        kind: ``'pixel'`` or ``'channel'``; see :class:`Variant`.
    """

    def __init__(self, in_channels: int, channels: int, kind: str) -> None:
        super().__init__()
        self.conv = None
        if kind == 'pixel':
            self.conv = nn.Conv2d(in_channels + channels, channels, 1)
        else:
            self.logit = nn.Parameter(torch.zeros(channels, 1, 1))
        self.match = None
        if in_channels != channels:
            self.match = nn.Conv2d(channels, in_channels, 1)

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Add the previous features, gated; all (N, C, H, W)."""
        logit = (
            self.logit
            if self.conv is None
            else self.conv(torch.cat([x, previous], dim=1))
        )
        gated = logit.sigmoid() * previous
        return x + (gated if self.match is None else self.match(gated))


class LaterTower(nn.Module):
    """One branch (classification or regression) of one later stage.

    Args:
        convs: The first stage's tower; its layers are copied.
        output: The first stage's output convolution, copied as well.
        gate: Lets the previous tower's features in, or ``None``.
    """

    def __init__(
        self,
        convs: Sequence[nn.Module],
        output: nn.Module,
        gate: Union[FeatureGate, None],
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(copy.deepcopy(conv) for conv in convs)
        self.output = copy.deepcopy(output)
        self.gate = gate

    def forward(self, x: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's output and its tower's features.

        Args:
            x: Features of a level, (N, C, H, W).
            previous: The previous stage's tower's features.
        """
        if self.gate is not None:
            x = self.gate(x, previous)
        for conv in self.convs:
            x = conv(x)
        return self.output(x), x


def stack_deltas(stages: Sequence[Tensor]) -> Tensor:
    """Stages of (N, A·4, H, W) to (N, A·S·4, H, W), as the chained coder cuts it."""
    split = [deltas.unflatten(1, (-1, 4)) for deltas in stages]
    return torch.stack(split, dim=2).flatten(1, 3)


def mean_score_logits(
    stages: list[Tensor], use_sigmoid: bool, num_classes: int
) -> Tensor:
    """Logits whose scores are the mean of the stages' probabilities.

    Args:
        stages: Logits of each stage, (N, A·C, H, W).
        use_sigmoid: Whether scores are sigmoids, or a softmax over C.
        num_classes: C, but for the background that a softmax has besides.

    Returns:
        (N, A·C, H, W).
    """
    logits = torch.stack(stages)
    if use_sigmoid:
        yes, no = (F.logsigmoid(x).logsumexp(dim=0) for x in (logits, -logits))
        return yes - no
    split = logits.unflatten(2, (-1, num_classes + 1))
    return split.log_softmax(dim=3).logsumexp(dim=0).flatten(1, 2)
