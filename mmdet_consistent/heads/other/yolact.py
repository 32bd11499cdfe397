"""Later stages for YOLACT, which mines hard negatives as SSD does."""

from mmdet.utils import InstanceList
from torch import Tensor

from ..cls_loss import mined_label_set_losses
from ..stage import Stage
from ..targets import StageTargets
from .generic import GenericStages


class YOLACTStages(GenericStages):
    """Later stages of :class:`mmdet.models.dense_heads.YOLACTHead`.

    The masks are the base head's and follow the prior anchors.
    """

    def trained_truths(self, instances: InstanceList) -> InstanceList:
        """Return all of them: masks are found by their number."""
        return instances

    def label_losses(
        self, levels: list[Tensor], stages: list[Stage], targets: list[StageTargets]
    ) -> list[Tensor]:
        """Compute the softmax loss with hard negatives mined per label set."""
        losses = mined_label_set_losses(self, levels, targets)
        return [self.loss_cls.loss_weight * loss for loss in losses]
