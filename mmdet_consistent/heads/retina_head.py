"""ConRetinaNet's head."""

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from torch import Tensor, nn

from .cls_loss import is_plain_focal, is_plain_quality, keeps_seams
from .consistent_mixin import ConsistentMixin
from .variants import FeatureGate, LaterTower, stack_deltas


@MODELS.register_module()
class ConsistentRetinaHead(ConsistentMixin, RetinaHead):
    """RetinaNet's head under consistent optimization (ConRetinaNet).

    Towers and the classification output are
    :class:`mmdet.models.dense_heads.RetinaHead`'s; ``retina_reg`` gives one
    set of deltas per regression stage. The options are those of
    :class:`ConsistentMixin`; every other argument is ``RetinaHead``'s.
    """

    def _box_outputs(self) -> list[tuple[nn.Module, str]]:
        return [(self, 'retina_reg')]

    def _base_is_plain(self) -> bool:
        loss = self.loss_cls
        plain = is_plain_focal(loss) or is_plain_quality(loss)
        return (
            plain
            and self._sums_boxes()
            and keeps_seams(type(self), ConsistentRetinaHead)
        )

    def _build_later_towers(self) -> None:
        gated = self.variant.type == 'gated_cascade'

        def tower(convs: nn.ModuleList, output: nn.Module) -> LaterTower:
            gate = None
            if gated:
                channels = self.feat_channels if len(convs) else self.in_channels
                gate = FeatureGate(self.in_channels, channels, self.variant.gate)
            return LaterTower(convs, output, gate)

        self.later_cls = nn.ModuleList(
            tower(self.cls_convs, self.retina_cls) for _ in range(1, self.label_stages)
        )
        self.later_reg = nn.ModuleList(
            tower(self.reg_convs, self.retina_reg) for _ in range(1, self.reg_stages)
        )

    def init_weights(self) -> None:
        """The base head's; a cascade's later outputs get the first one's biases."""
        super().init_weights()
        if self.variant.own_towers:
            for tower in self.later_cls:
                tower.output.bias.data.copy_(self.retina_cls.bias.data)

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and deltas of one level.

        Args:
            x: Features, (N, C, H, W).

        Returns:
            Logits, (N, A·C, H, W), of a cascade (N, K·A·C, H, W), stage after
            stage; deltas, (N, A·S·4, H, W).
        """
        if not self.variant.own_towers:
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
