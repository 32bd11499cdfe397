"""ConSSD's head."""

from typing import Any, Optional

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import SmoothL1Loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from .box_output import stack_deltas
from .cls_loss import mined_label_set_losses
from .consistent_mixin import ConsistentMixin
from .first_stage import overrides_none_of
from .stage import Stage
from .targets import StageTargets
from .variants import LaterTower


class SSDStages(ConsistentMixin):
    """Later stages of :class:`mmdet.models.dense_heads.SSDHead` and its subclasses."""

    #: mmdet's predict path reads it from every head, but its SSD head has no such
    #: module.
    loss_cls: Optional[nn.Module] = None
    later_cls: Any
    later_reg: Any

    def box_output_layers(self) -> list[tuple[nn.Module, str]]:
        """Return the last layer of each level's box branch."""
        return [(layers, str(len(layers) - 1)) for layers in self.reg_convs]

    def stage_losses(self, index: int) -> tuple[Optional[nn.Module], nn.Module]:
        """Return SSD's smooth L1. Its classification loss is a function."""
        return None, SmoothL1Loss(beta=self.train_cfg['smoothl1_beta'])

    def build_later_towers(self) -> None:
        """Build a copy of all branches per later stage."""
        if self.variant.type == 'gated_cascade':
            raise ValueError(
                f"variant='{self.variant.type}': SSD's head has no tower whose "
                "features a gate could admit; use variant='cascade' or 'consistent'"
            )

        def stages(levels: Any, count: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.ModuleList(LaterTower(x[:-1], x[-1], None) for x in levels)
                for _ in range(1, count)
            )

        self.later_cls = stages(self.cls_convs, self.label_stages)
        self.later_reg = stages(self.reg_convs, self.reg_stages)

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the outputs of all levels.

        Args:
            x: Features of each level, (N, C, H, W).

        Returns:
            Logits of each level, (N, A·C, H, W), of a cascade (N, K·A·C, H, W), stage
            after stage; and box outputs of each level, (N, A·(S·4 + E), H, W).
        """
        cls_scores, bbox_preds = super().forward(x)
        if not self.variant.has_separate_towers:
            return cls_scores, bbox_preds
        for level, features in enumerate(x):
            scores, preds = (
                [first] + [stage[level](features, features)[0] for stage in later]
                for first, later in (
                    (cls_scores[level], self.later_cls),
                    (bbox_preds[level], self.later_reg),
                )
            )
            cls_scores[level] = torch.cat(scores, dim=1)
            bbox_preds[level] = stack_deltas(preds)
        return cls_scores, bbox_preds

    def label_losses(
        self, levels: list[Tensor], stages: list[Stage], targets: list[StageTargets]
    ) -> list[Tensor]:
        """Compute the softmax loss with hard negatives mined per label set."""
        return mined_label_set_losses(self, levels, targets)


@MODELS.register_module()
class ConsistentSSDHead(SSDStages, SSDHead):
    """SSD's head under consistent optimization (ConSSD, Table 5).

    Softmax cross-entropy with hard negatives mined **per label set**, and smooth L1 on
    positives, both divided by the stage's positives. Each level's box output returns
    one set of deltas per regression stage. The options are those of
    :class:`ConsistentMixin`; every other argument is that of
    :class:`mmdet.models.dense_heads.SSDHead`.

    Figure 4's ``gated_cascade`` is not available: without towers there are no features
    of a previous stage for a gate to admit.
    """

    def can_fuse_first_stage(self) -> bool:
        """Return whether the targets are mmdet's own. The losses are always sums."""
        return overrides_none_of(type(self), ConsistentSSDHead)
