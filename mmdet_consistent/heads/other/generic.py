"""What the consistent versions of mmdet's other anchor-based heads have in common."""

from typing import ClassVar

import torch
from mmdet.models import losses as mmdet_losses
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.utils import InstanceList
from torch import Tensor, nn

from ...losses.layout import flatten_levels
from ..consistent_mixin import ConsistentMixin

# Box losses that compare boxes, whatever `reg_decoded_bbox` says: heads that decode
# by themselves have them without it.
BOX_LOSSES = tuple(
    getattr(mmdet_losses, name)
    for name in ('IoULoss', 'BoundedIoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss')
)
# Their predict path cuts rows by the coder's `encode_size`; others take it for 4.
STAGED_PREDICT = (
    BaseDenseHead._predict_by_feat_single,
    RPNHead._predict_by_feat_single,
)


class AnyStages(ConsistentMixin):
    """Later stages for a head of which nothing is known but that it has anchors.

    The first stage is the base head's own, whatever its loss, assigner or further
    outputs are. The later stages have the head's classification and box losses
    (or what a subclass says), without what the head weighs them by.
    """

    #: Names of the convolutions that give 4·A deltas; the first that there is.
    box_outputs: ClassVar[tuple[str, ...]] = (
        'retina_reg',
        'rpn_reg',
        'atss_reg',
        'conv_reg',
        'bbox_pred',
    )

    def __init__(self, *args, cls_normalizer: str = 'stage', **kwargs) -> None:
        super().__init__(*args, cls_normalizer=cls_normalizer, **kwargs)
        if cls_normalizer == 'first' and not self._has_plain_targets():
            raise ValueError(
                f"cls_normalizer='first': {type(self).__name__} doesn't say what its "
                "first stage is divided by; use cls_normalizer='stage'"
            )

    def _box_outputs(self) -> list[tuple[nn.Module, str]]:
        for name in self.box_outputs:
            if isinstance(getattr(self, name, None), nn.Conv2d):
                return [(self, name)]
        raise ValueError(
            f'{type(self).__name__} has no convolution of the name '
            f'{" or ".join(self.box_outputs)}: say which one gives the deltas, '
            "make_consistent(head, box_outputs=('name',))"
        )

    def _build_stage_losses(self, later: int) -> None:
        super()._build_stage_losses(later)
        for loss in (*self.stage_loss_cls, *self.stage_loss_bbox):
            # What a head adds up by itself is added up by the loss here.
            if getattr(loss, 'reduction', None) == 'none':
                loss.reduction = 'mean'

    def loss_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *inputs, **kwargs
    ) -> dict:
        """See :meth:`ConsistentMixin.loss_by_feat`; further outputs come third."""
        count = 0
        while count < len(inputs) and _is_output(inputs[count]):
            count += 1
        return super().loss_by_feat(
            cls_scores,
            bbox_preds,
            *inputs[count:],
            other_outputs=inputs[:count],
            **kwargs,
        )

    def get_targets(self, *args, **kwargs) -> tuple:
        """The base head's, whatever it calls with and gives."""
        if self._has_plain_targets():
            return super().get_targets(*args, **kwargs)
        return super(ConsistentMixin, self).get_targets(*args, **kwargs)

    def predict_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *args, **kwargs
    ) -> InstanceList:
        """The base head's; one that can't chain decodes gets one set of deltas."""
        if self.reg_stages == 1 or self._predicts_staged():
            return super().predict_by_feat(cls_scores, bbox_preds, *args, **kwargs)
        composed = self.composed_deltas(cls_scores, bbox_preds)
        with self._as_base_head():
            return super().predict_by_feat(cls_scores, composed, *args, **kwargs)

    def composed_deltas(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor]
    ) -> list[Tensor]:
        """All stages as one set of deltas that the base head's coder decodes.

        Args:
            cls_scores: For the sizes of the levels.
            bbox_preds: Of each level, (N, A·S·4, H, W).

        Returns:
            (N, A·4, H, W) of each level. All anchors are decoded for it, so this is
            slower than chaining the decodes of those that are left.
        """
        sizes = [scores.shape[-2:] for scores in cls_scores]
        stages = self.split_preds(bbox_preds)
        stages[0] = self._first_deltas(stages[0])
        levels = []
        for level, deltas in enumerate(zip(*stages)):
            anchors = self.prior_generator.single_level_grid_priors(
                sizes[level], level, dtype=deltas[0].dtype, device=deltas[0].device
            )
            anchors = anchors.repeat(len(deltas[0]), 1)
            rows = torch.cat([flatten_levels([x], 4) for x in deltas], dim=2)
            boxes = self.bbox_coder.decode(anchors, rows.flatten(0, 1))
            rows = self.stage_coders[0].encode(anchors, boxes)
            rows = rows.view(len(deltas[0]), *sizes[level], -1)
            levels.append(rows.permute(0, 3, 1, 2))
        return levels

    def _has_plain_targets(self) -> bool:
        """Whether the base head's targets are made as ``AnchorHead``'s are."""
        return super(ConsistentMixin, type(self)).get_targets is AnchorHead.get_targets

    def _predicts_staged(self) -> bool:
        """Whether mmdet's predict path finds the chained coder's rows."""
        return type(self)._predict_by_feat_single in STAGED_PREDICT

    def _loses_on_boxes(self) -> bool:
        return self.reg_decoded_bbox or isinstance(self.loss_bbox, BOX_LOSSES)

    def _weigh_base_labels(self, losses: dict, weight: float) -> None:
        names = [name for name in losses if 'loss' in name and 'cls' in name]
        if not names:
            raise ValueError(
                f'stage_loss_weights={self.stage_loss_weights}: the loss of '
                f'{type(self).__name__} has no classification part that could be '
                f'weighed (it has {", ".join(losses)}); the first weight must be 1'
            )
        for name in names:
            value = losses[name]
            is_list = isinstance(value, (list, tuple))
            losses[name] = [x * weight for x in value] if is_list else value * weight


def _is_output(value) -> bool:
    """Whether this is a level-by-level output of a head, not ground truth."""
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    return is_list and isinstance(value[0], Tensor)
