"""The cascades of Figure 4 (b and c): separate towers per stage, and merged scores."""

import copy
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANTS = ('baseline', 'cascade', 'gated_cascade', 'consistent')


class Variant(NamedTuple):
    """Detector of the paper's Figure 4, with the choices the paper does not specify.

    Attributes:
        type: ``'baseline'`` (a), ``'cascade'`` (b), ``'gated_cascade'`` (c) or
            ``'consistent'`` (d).
        scores: Scores of a cascade at inference: ``'mean'`` of the stages'
            probabilities, or those of the ``'last'`` stage.
        gate: How (c) admits the previous tower's features: ``'pixel'``, by a 1 × 1
            convolution of both features, or ``'channel'``, by one number per channel. A
            sigmoid follows.
    """

    type: str
    scores: str = 'mean'
    gate: str = 'pixel'

    @property
    def has_separate_towers(self) -> bool:
        """True if later stages have their own towers and outputs."""
        return self.type in ('cascade', 'gated_cascade')

    @classmethod
    def check(cls, value: Union[str, dict]) -> 'Variant':
        """Read the option ``variant``.

        Raises:
            ValueError: If it is invalid. The message names the field and its choices.
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
                    f'variant={value!r} has an unknown option {name!r}; use '
                    f'{tuple(choices)}'
                )
            if chosen not in choices[name]:
                where = 'variant' if isinstance(value, str) else f'variant.{name}'
                raise ValueError(
                    f'{where} must be one of {choices[name]}, got {chosen!r}'
                )
        return cls(**fields)

    def split_scores(
        self, cls_scores: list[Tensor], label_stages: int
    ) -> list[list[Tensor]]:
        """Split levels of logits by stage. A shared output makes a single stage.

        Args:
            cls_scores: Logits of each level, (N, A·C, H, W); of a cascade,
                (N, K·A·C, H, W), stage after stage.
            label_stages: K.
        """
        if not self.has_separate_towers:
            return [cls_scores]
        levels = [scores.chunk(label_stages, dim=1) for scores in cls_scores]
        return [list(stage) for stage in zip(*levels)]

    def merge_scores(
        self, stages: list[list[Tensor]], use_sigmoid: bool, num_classes: int
    ) -> list[Tensor]:
        """Merge the logits of all stages into those that score the boxes.

        Args:
            stages: Result of :meth:`split_scores`.
            use_sigmoid: Whether scores are sigmoids, else a softmax over C.
            num_classes: C, without the background class of a softmax.

        Returns:
            Logits of each level, (N, A·C, H, W).
        """
        if len(stages) == 1 or self.scores == 'last':
            return stages[-1]
        return [
            mean_score_logits(list(level), use_sigmoid, num_classes)
            for level in zip(*stages)
        ]


class FeatureGate(nn.Module):
    """Adds gated features of the previous tower: x + σ(gate) · previous.

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
        """Add the gated previous features. All are (N, C, H, W)."""
        logit = (
            self.logit
            if self.conv is None
            else self.conv(torch.cat([x, previous], dim=1))
        )
        gated = logit.sigmoid() * previous
        return x + (gated if self.match is None else self.match(gated))


class LaterTower(nn.Module):
    """One branch, classification or regression, of one later stage of a cascade.

    Args:
        convs: The first stage's tower, whose layers are copied.
        output: The first stage's output convolution, copied as well.
        gate: Admits the previous tower's features; ``None`` in variant (b).
    """

    def __init__(
        self, convs: Sequence[nn.Module], output: nn.Module, gate: Optional[FeatureGate]
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(copy.deepcopy(conv) for conv in convs)
        self.output = copy.deepcopy(output)
        self.gate = gate

    def forward(self, x: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the stage's output, and the features of its tower.

        Args:
            x: Features of a level, (N, C, H, W).
            previous: Features of the previous stage's tower.
        """
        if self.gate is not None:
            x = self.gate(x, previous)
        for conv in self.convs:
            x = conv(x)
        return self.output(x), x


def mean_score_logits(
    stages: list[Tensor], use_sigmoid: bool, num_classes: int
) -> Tensor:
    """Return logits whose scores are the mean of the stages' probabilities.

    Args:
        stages: Logits of each stage, (N, A·C, H, W).
        use_sigmoid: Whether scores are sigmoids, else a softmax over C.
        num_classes: C, without the background class of a softmax.

    Returns:
        (N, A·C, H, W).
    """
    logits = torch.stack(stages)
    if use_sigmoid:
        yes, no = (F.logsigmoid(x).logsumexp(dim=0) for x in (logits, -logits))
        return yes - no
    split = logits.unflatten(2, (-1, num_classes + 1))
    return split.log_softmax(dim=3).logsumexp(dim=0).flatten(1, 2)
