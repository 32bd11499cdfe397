"""Later stages for an arbitrary anchor-based head."""

from typing import Any, ClassVar, Optional

from mmdet.models.dense_heads import (
    ATSSHead,
    DDODHead,
    FreeAnchorRetinaHead,
    FSAFHead,
    GFLHead,
    PISARetinaHead,
    RPNHead,
    YOLACTHead,
    YOLOFHead,
)
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.utils import InstanceList
from torch import Tensor, nn

from ..box_loss import IOU_LOSSES
from ..consistent_mixin import ConsistentMixin
from ..first_stage import as_base_head, other_output_names

# Their predict path cuts rows by the coder's `encode_size`; others assume 4.
CHAINING_PREDICT = (
    BaseDenseHead._predict_by_feat_single,
    RPNHead._predict_by_feat_single,
)
# Heads whose own loss averages its normaliser over the processes.
SYNCING_HEADS = (ATSSHead, DDODHead, GFLHead, YOLOFHead)
# Heads whose own loss compares deltas, unless they decode for it.
DELTA_HEADS = (
    *(AnchorHead, RPNHead, FSAFHead, YOLACTHead),
    *(PISARetinaHead, FreeAnchorRetinaHead),
)


class GenericStages(ConsistentMixin):
    """Later stages for a head of which only its anchors are known.

    The base head computes stage 0, whatever its loss, assigner or further outputs are.
    The later stages use the head's classification and box losses (or what a subclass
    defines), without the weights that the head applies to them.
    """

    #: Names of the convolution that returns 4·A deltas; the first one found is used.
    box_outputs: ClassVar[tuple[str, ...]] = (
        'retina_reg',
        'rpn_reg',
        'atss_reg',
        'conv_reg',
        'bbox_pred',
    )

    def __init__(
        self, *args: Any, cls_normalizer: Optional[str] = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, cls_normalizer=cls_normalizer, **kwargs)
        if cls_normalizer == 'first' and not self.has_plain_targets():
            raise ValueError(
                f"cls_normalizer='first': {type(self).__name__} does not expose the "
                "normaliser of its first stage; use cls_normalizer='stage'"
            )

    def box_output_layers(self) -> list[tuple[nn.Module, str]]:
        """Return the head's only box output, found by its name."""
        for name in self.box_outputs:
            if isinstance(getattr(self, name, None), nn.Conv2d):
                return [(self, name)]
        raise ValueError(
            f'{type(self).__name__} has no convolution named '
            f'{" or ".join(self.box_outputs)}: name the one that returns the deltas, '
            "make_consistent(head, box_outputs=('name',))"
        )

    def base_syncs_normalizer(self) -> bool:
        """Return whether the base head's own loss averages over the processes."""
        return self._loss_owner() in SYNCING_HEADS

    def compares_deltas(self) -> bool:
        """Return whether the base head's own code compares deltas, even by IoU."""
        return super().compares_deltas() and self._loss_owner() in DELTA_HEADS

    def _loss_owner(self) -> type:
        """Return the class whose ``loss_by_feat`` the base head has."""
        kinds = self.base_class().__mro__
        return next(kind for kind in kinds if 'loss_by_feat' in vars(kind))

    def uses_decoded_boxes(self) -> bool:
        """Return whether the box loss compares boxes: IoU losses always do."""
        return self.reg_decoded_bbox or isinstance(self.loss_bbox, IOU_LOSSES)

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        *inputs: Any,
        **kwargs: Any,
    ) -> dict:
        """Compute the losses of all stages; see :class:`ConsistentMixin`.

        The base head's further outputs, if it has any, come third.
        """
        count = len(other_output_names(type(self)))
        others, truths = inputs[:count], inputs[count:]
        kwargs.update(other_outputs=others)
        return super().loss_by_feat(cls_scores, bbox_preds, *truths, **kwargs)

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> InstanceList:
        """Predict as the base head, from chained decodes or composed deltas."""
        if self.reg_stages == 1 or self.chains_decodes():
            return super().predict_by_feat(cls_scores, bbox_preds, *args, **kwargs)
        composed = self.composed_deltas(cls_scores, bbox_preds)
        with as_base_head(self):
            return super().predict_by_feat(cls_scores, composed, *args, **kwargs)

    def chains_decodes(self) -> bool:
        """Return whether mmdet's predict path hands whole rows to the chained coder."""
        return type(self)._predict_by_feat_single in CHAINING_PREDICT

    def composed_deltas(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor]
    ) -> list[Tensor]:
        """Compose all stages into one set of deltas for the base head's box coder.

        All anchors are decoded, so this is slower than chaining the decodes of those
        that survive.

        Args:
            cls_scores: Logits of each level, for their sizes.
            bbox_preds: Box outputs of each level, (N, A·(S·4 + E), H, W).

        Returns:
            Levels of (N, A·4, H, W).
        """
        levels = []
        for level, (scores, preds) in enumerate(zip(cls_scores, bbox_preds)):
            batch, size = len(preds), scores.shape[-2:]
            anchors = self.prior_generator.single_level_grid_priors(
                size, level, dtype=preds.dtype, device=preds.device
            ).repeat(batch, 1)
            rows = preds.permute(0, 2, 3, 1).reshape(-1, sum(self.output_sizes))
            deltas = list(rows.split(self.output_sizes, dim=1)[: self.reg_stages])
            deltas[0] = self.first_stage_rows(deltas[0], level)
            boxes = anchors
            for stage, values in zip(self.stages, deltas):
                boxes = stage.bbox_coder.decode(boxes, values)
            composed = self.stages[0].bbox_coder.encode(anchors, boxes)
            composed = composed.reshape(batch, *size, -1)
            levels.append(composed.permute(0, 3, 1, 2))
        return levels

    def first_stage_rows(self, rows: Tensor, level: int) -> Tensor:
        """Return what the first stage's box coder decodes, (P, 4), from its outputs."""
        return rows
