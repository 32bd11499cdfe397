"""Which part of what a head gives is whose.

Levels of box outputs, (N, A·(F + 4·(S - 1) + E), H, W), hold for each of A anchors: the
first stage's F values (4 deltas, unless the base head says otherwise), 4 deltas for
each later one of S regression stages, and the additions' E values.
"""

from torch import Tensor

from .addition import Addition
from .variants import mean_score_logits


class StagedOutputs:
    """Cuts a consistent head's outputs by stage, and puts scores together again."""

    #: Values that the base head's own box output gives for an anchor.
    first_values = 4

    def merge_scores(self, cls_scores: list[Tensor]) -> list[Tensor]:
        """The logits that boxes are scored by: as they are, but for a cascade's.

        Args:
            cls_scores: Of each level, as ``forward`` gives them.

        Returns:
            Of each level, (N, A·C, H, W); of a cascade, those of the mean of its
            stages' probabilities (or of the last stage, see :class:`Variant`).
        """
        stages = self.split_scores(cls_scores)
        if len(stages) == 1:
            return cls_scores
        if self.variant.scores == 'last':
            return stages[-1]
        return [
            mean_score_logits(list(level), self.use_sigmoid_cls, self.num_classes)
            for level in zip(*stages)
        ]

    def split_scores(self, cls_scores: list[Tensor]) -> list[list[Tensor]]:
        """Levels of logits to stages of levels; one stage where all share them."""
        if not self.variant.own_towers:
            return [cls_scores]
        levels = [scores.chunk(self.label_stages, dim=1) for scores in cls_scores]
        return [list(stage) for stage in zip(*levels)]

    def split_preds(self, bbox_preds: list[Tensor]) -> list[list[Tensor]]:
        """Levels of (N, A·S·4, H, W) to stages of levels of (N, A·4, H, W)."""
        sizes = [self.first_values] + [4] * (self.reg_stages - 1)
        sizes += [self.extra_values] * bool(self.extra_values)
        if len(sizes) == 1:
            return [bbox_preds]
        levels = [
            pred.unflatten(1, (-1, sum(sizes))).split(sizes, dim=2)
            for pred in bbox_preds
        ]
        return [
            [level[stage].flatten(1, 2) for level in levels]
            for stage in range(self.reg_stages)
        ]

    def values_of(self, addition: Addition, bbox_preds: list[Tensor]) -> list[Tensor]:
        """One addition's own values of each level: (N, A, its values, H, W)."""
        size = self.first_values + 4 * (self.reg_stages - 1) + self.extra_values
        place = self.place_of(addition)
        return [pred.unflatten(1, (-1, size))[:, :, place] for pred in bbox_preds]

    def place_of(self, addition: Addition) -> slice:
        """Where one addition's values are in what is given for an anchor."""
        start = self.first_values + 4 * (self.reg_stages - 1)
        for other in self.additions:
            if other is addition:
                break
            start += other.values
        return slice(start, start + addition.values)
