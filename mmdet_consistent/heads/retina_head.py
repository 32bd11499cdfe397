"""ConRetinaNet's head."""

from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from torch import Tensor, nn

from .box_loss import is_rowwise
from .box_output import stack_deltas
from .cls_loss import is_plain_sum
from .consistent_mixin import ConsistentMixin
from .first_stage import overrides_none_of
from .variants import FeatureGate, LaterTower


@MODELS.register_module()
class ConsistentRetinaHead(ConsistentMixin, RetinaHead):
    """RetinaNet's head under consistent optimization (ConRetinaNet).

    Towers and classification output are those of
    :class:`mmdet.models.dense_heads.RetinaHead`. ``retina_reg`` returns one set of
    deltas per regression stage. The options are those of :class:`ConsistentMixin`;
    every other argument is ``RetinaHead``'s.
    """

    later_cls: Any
    later_reg: Any

    def box_output_layers(self) -> list[tuple[nn.Module, str]]:
        """Return ``retina_reg``, which serves all levels."""
        return [(self, 'retina_reg')]

    def can_fuse_first_stage(self) -> bool:
        """Return whether the losses are plain sums and the targets mmdet's own."""
        plain = is_plain_sum(self.loss_cls) and is_rowwise(self.loss_bbox)
        return plain and overrides_none_of(type(self), ConsistentRetinaHead)

    def build_later_towers(self) -> None:
        """Build a copy of both towers per later stage, with gates in variant (c)."""
        gated = self.variant.type == 'gated_cascade'

        def tower(convs: nn.ModuleList, output: nn.Module) -> LaterTower:
            gate = None
            if gated:
                channels = self.feat_channels if len(convs) else self.in_channels
                gate = FeatureGate(self.in_channels, channels, self.variant.gate)
            return LaterTower(list(convs), output, gate)

        self.later_cls = nn.ModuleList(
            tower(self.cls_convs, self.retina_cls) for _ in range(1, self.label_stages)
        )
        self.later_reg = nn.ModuleList(
            tower(self.reg_convs, self.retina_reg) for _ in range(1, self.reg_stages)
        )

    def init_weights(self) -> None:
        """Initialise as the base head. Later outputs of a cascade copy its biases."""
        done = self.is_init
        super().init_weights()
        if self.variant.has_separate_towers and not done:
            for tower in self.later_cls:
                tower.output.bias.data.copy_(self.retina_cls.bias.data)

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the outputs of one level.

        Args:
            x: Features, (N, C, H, W).

        Returns:
            Logits, (N, A·C, H, W), of a cascade (N, K·A·C, H, W), stage after stage;
            and box outputs, (N, A·(S·4 + E), H, W).
        """
        if not self.variant.has_separate_towers:
            return super().forward_single(x)
        outputs = []
        branches = (
            (self.cls_convs, self.retina_cls, self.later_cls),
            (self.reg_convs, self.retina_reg, self.later_reg),
        )
        for convs, output, later in branches:
            features = x
            for conv in convs:
                features = conv(features)
            stages = [output(features)]
            for tower in later:
                stage, features = tower(x, features)
                stages.append(stage)
            outputs.append(stages)
        return torch.cat(outputs[0], dim=1), stack_deltas(outputs[1])
