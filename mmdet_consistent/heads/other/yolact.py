"""Later stages for heads that mine hard negatives as SSD does."""

from torch import Tensor

from ..ssd_head import mined_label_losses
from ..targets import StageTargets
from .generic import AnyStages


class YOLACTStages(AnyStages):
    """Later stages of :class:`mmdet.models.dense_heads.YOLACTHead`.

    Its masks are those of the base head: they follow the prior anchors.
    """

    def label_losses(
        self, levels: list[Tensor], targets: dict[int, StageTargets]
    ) -> list[Tensor]:
        """Softmax loss with mined negatives; see :class:`ConsistentSSDHead`."""
        weight = self.loss_cls.loss_weight
        return [weight * loss for loss in mined_label_losses(self, levels, targets)]
