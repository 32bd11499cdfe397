"""Later stages for boxes predicted as distributions (Generalized Focal Loss)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Optional

from mmdet.models.dense_heads.gfl_head import Integral
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import BaseBoxes
from torch import Tensor

from .generic import GenericStages


@TASK_UTILS.register_module()
class AnchorDistanceBBoxCoder(DistancePointBBoxCoder):
    """:class:`DistancePointBBoxCoder` that accepts anchors as well as points.

    A box is given by the distances of its sides from the anchor's centre, in pixels.
    """

    def encode(
        self, points: Tensor, gt_bboxes: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return distances (P, 4) of boxes (P, 4) from anchors (P, 4) or points."""
        return super().encode(_centres(points), gt_bboxes, *args, **kwargs)

    def decode(
        self, points: Tensor, pred_bboxes: Tensor, *args: Any, **kwargs: Any
    ) -> BaseBoxes:
        """Return boxes (P, 4) at distances (P, 4) from anchors (P, 4) or points."""
        return super().decode(_centres(points), pred_bboxes, *args, **kwargs)


class IntegralOrIdentity(Integral):
    """mmdet's integral of distributions, which passes distances (…, 4) through."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of each distribution, (P, 4·(n + 1)) to (P, 4)."""
        return x.reshape(-1, 4) if x.shape[-1] == 4 else super().forward(x)


class DistributionStages(GenericStages):
    """Later stages of :class:`mmdet.models.dense_heads.GFLHead`.

    The first stage predicts four distributions and is trained by the base head. The
    later ones predict four deltas of the box at the distributions' means. The target
    quality of a later label set is the IoU after the last regression.
    """

    box_outputs: ClassVar[tuple[str, ...]] = ('gfl_reg',)

    def __init__(
        self,
        *args: Any,
        bbox_coder: Optional[dict] = None,
        additions: Sequence[dict] = (),
        **kwargs: Any,
    ) -> None:
        coder = dict(bbox_coder or {}, type='AnchorDistanceBBoxCoder')
        kwargs.setdefault('stage_bbox_coders', dict(type='DeltaXYWHBBoxCoder'))
        stages = kwargs.get('label_stages'), kwargs.get('reg_stages')
        has_later = stages != (1, 1) and kwargs.get('variant') != 'baseline'
        if has_later and not any(x['type'] == 'QualityTargets' for x in additions):
            additions = [dict(type='QualityTargets'), *additions]
        super().__init__(*args, bbox_coder=coder, additions=additions, **kwargs)
        self.integral = IntegralOrIdentity(self.reg_max)

    @property
    def first_stage_channels(self) -> int:
        """Four distributions of n + 1 values."""
        return 4 * (self.reg_max + 1)

    def uses_decoded_boxes(self) -> bool:
        """Return True: mmdet's head decodes its boxes for the loss."""
        return True

    def first_stage_deltas(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the distributions' means in pixels: levels of (N, 4, H, W)."""
        distances = []
        for level, scores in enumerate(levels):
            rows = self.first_stage_rows(scores.permute(0, 2, 3, 1), level)
            size = (len(scores), *scores.shape[2:], 4)
            distances.append(rows.view(size).permute(0, 3, 1, 2))
        return distances

    def first_stage_rows(self, rows: Tensor, level: int) -> Tensor:
        """Return the distributions' means in pixels, (P, 4)."""
        return self.integral(rows) * self.prior_generator.strides[level][0]

    def composed_deltas(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor]
    ) -> list[Tensor]:
        """Return distances of the final boxes, in strides, as the base head does."""
        levels = super().composed_deltas(cls_scores, bbox_preds)
        strides = self.prior_generator.strides
        return [x / stride[0] for x, stride in zip(levels, strides)]


def _centres(points: Tensor) -> Tensor:
    """Return the centres of anchors (P, 4). Points (P, 2) are their own."""
    if points.shape[-1] == 2:
        return points
    return (points[..., :2] + points[..., 2:]) / 2
