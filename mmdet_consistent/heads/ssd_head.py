"""ConSSD's head."""

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import smooth_l1_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..losses import mined_losses, softmax_losses
from ..losses.layout import class_rows, mmdet_order, split_levels
from .cls_loss import keeps_seams
from .consistent_mixin import ConsistentMixin
from .targets import StageTargets
from .variants import LaterTower, stack_deltas


class SSDStages(ConsistentMixin):
    """Later stages of :class:`mmdet.models.dense_heads.SSDHead` and its kin."""

    loss_cls = None  # mmdet 3.2 and 3.3 read it to predict, and SSDHead has none

    def _box_outputs(self) -> list[tuple[nn.Module, str]]:
        return [(layers, str(len(layers) - 1)) for layers in self.reg_convs]

    def _sums_boxes(self) -> bool:
        return True

    def _build_stage_losses(self, later: int) -> None:
        """Nothing to build: SSD's losses are functions."""

    def _build_later_towers(self) -> None:
        if self.variant.type == 'gated_cascade':
            raise ValueError(
                f"variant='{self.variant.type}': SSD's head has no tower whose "
                "features a gate could let in; use variant='cascade' or 'consistent'"
            )

        def stages(levels: nn.ModuleList, count: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.ModuleList(LaterTower(x[:-1], x[-1], None) for x in levels)
                for _ in range(1, count)
            )

        self.later_cls = stages(self.cls_convs, self.label_stages)
        self.later_reg = stages(self.reg_convs, self.reg_stages)

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and deltas of all levels.

        Args:
            x: Features of each level, (N, C, H, W).

        Returns:
            Logits of each level, (N, A·C, H, W), of a cascade (N, K·A·C, H, W),
            stage after stage; deltas of each level, (N, A·S·4, H, W).
        """
        cls_scores, bbox_preds = super().forward(x)
        if not self.variant.own_towers:
            return cls_scores, bbox_preds
        for level, features in enumerate(x):
            cls_scores[level] = torch.cat(
                [cls_scores[level]]
                + [stage[level](features, features)[0] for stage in self.later_cls],
                dim=1,
            )
            bbox_preds[level] = stack_deltas(
                [bbox_preds[level]]
                + [stage[level](features, features)[0] for stage in self.later_reg]
            )
        return cls_scores, bbox_preds

    def label_losses(
        self, levels: list[Tensor], targets: dict[int, StageTargets]
    ) -> list[Tensor]:
        """See :func:`mined_label_losses`."""
        return mined_label_losses(self, levels, targets)

    def box_loss(
        self, stage: int, pred: Tensor, target: Tensor, avg_factor: Tensor
    ) -> Tensor:
        """Smooth L1 of stage k, summed over (P, 4) and divided: a scalar."""
        return smooth_l1_loss(
            pred, target, beta=self.train_cfg['smoothl1_beta'], avg_factor=avg_factor
        )


@MODELS.register_module()
class ConsistentSSDHead(SSDStages, SSDHead):
    """SSD's head under consistent optimization (ConSSD, Table 5).

    Softmax cross-entropy with hard negatives mined **per label set**, smooth L1
    on positives, both divided by the stage's positives. Each level's box output
    gives one set of deltas per regression stage. The options are those of
    :class:`ConsistentMixin`; every other argument is that of
    :class:`mmdet.models.dense_heads.SSDHead`.

    Of Figure 4's variants there is no ``gated_cascade``: without towers there are
    no features of a previous stage that a gate could let in.
    """

    def _base_is_plain(self) -> bool:
        return keeps_seams(type(self), ConsistentSSDHead)


def mined_label_losses(
    head: ConsistentMixin, levels: list[Tensor], targets: dict[int, StageTargets]
) -> list[Tensor]:
    """Softmax loss with mined negatives under several label sets.

    Args:
        head: For its classes and ``train_cfg.neg_pos_ratio``.
        levels: c, (N, A·(C + 1), H, W) each.
        targets: Of each stage whose labels it meets.

    Returns:
        A scalar for each stage, divided by its normaliser.
    """
    if not targets:
        return []
    labels = torch.stack([target.labels for target in targets.values()])
    weights = torch.stack([target.label_weights for target in targets.values()])
    channels = head.cls_out_channels
    rows = softmax_losses(
        [class_rows(scores, channels) for scores in levels],
        split_levels(labels, levels, channels),
    )
    losses = torch.cat(
        [mmdet_order(x, scores) for x, scores in zip(rows, levels)], dim=2
    )
    sums = mined_losses(
        losses * weights,
        labels < head.num_classes,
        labels == head.num_classes,
        head.train_cfg['neg_pos_ratio'],
    )
    return [
        value / target.cls_avg_factor for value, target in zip(sums, targets.values())
    ]
