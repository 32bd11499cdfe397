"""Scores trained towards the IoU of the box that they rank."""

from dataclasses import replace
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS
from torch import Tensor

from ..heads.addition import Addition, TrainingBatch
from ..heads.anchors import refine_boxes
from ..heads.targets import StageTargets

BOXES = ('final', 'next')


@MODELS.register_module()
class QualityTargets(Addition):
    """Consistent targets for the quality focal loss.

    Generalized Focal Loss (Li et al., NeurIPS 2020) trains the score of a positive's
    class towards the IoU of its predicted box. With several regressions there are
    several such boxes. At test time a score ranks the box after the **last** one, so
    every label stage takes that box's IoU as its target:

        quality = IoU(b, g),  b = decode(…decode(A⁰, t⁰)…, tˢ⁻¹), detached

    where g is the ground truth matched with the anchor in that stage. A box that is
    non-finite or empty has quality 0, and so has everything that is not positive, as in
    mmdet's loss. Weights and normalisers do not change.

    ::

        loss_cls=dict(
            type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        additions=[dict(type='QualityTargets')]

    mmdet's ``RetinaHead`` cannot supply this loss with targets.
    ``ConsistentRetinaHead`` can, through this addition, even with one stage. Where the
    base head computes stage 0 itself (GFL), the addition concerns only the later
    stages.

    The addition changes neither the network nor inference. The loss is mmdet's, which
    selects its positives: on a GPU the host waits once per label stage. Logits and
    quality are float32, also under AMP.

    Args:
        boxes: ``'final'``: as above. ``'next'``: the quality of stage k is that of its
            own regression's boxes, Aᵏ⁺¹, or of the last boxes if it has none. This
            shows the effect of consistency.

    Raises:
        ValueError: If ``boxes`` is neither, or the head cannot compute a quality focal
            loss.
    """

    def __init__(self, boxes: str = 'final') -> None:
        super().__init__()
        if boxes not in BOXES:
            raise ValueError(f'QualityTargets.boxes must be in {BOXES}, got {boxes!r}')
        self.boxes = boxes

    def attach(self, head: Any) -> None:
        """Refuse heads whose loss is not on quality."""
        kind = type(head).__name__
        loss = getattr(head, 'loss_cls', None)
        if not isinstance(loss, QualityFocalLoss) or loss.activated:
            found = 'has none' if loss is None else f'has {loss}'
            raise ValueError(
                'QualityTargets needs a head with loss_cls=dict('
                f"type='QualityFocalLoss', activated=False, …), but {kind} {found}: "
                'give RetinaNet or GFL that loss, or remove QualityTargets'
            )
        only_labels = type(head).loss_by_feat_single is AnchorHead.loss_by_feat_single
        if head.train_cfg and only_labels and not head.first_stage.is_fused:
            raise ValueError(
                f"QualityTargets: the first-stage loss of {kind}'s base head takes no "
                'quality. To compute it together with the later stages, use '
                "reduction='mean' in loss_cls, a loss_bbox that is a plain sum "
                "(L1Loss, GIoULoss, …), sampler=dict(type='PseudoSampler') and a "
                'max-IoU assigner'
            )
        super().attach(head)

    @torch.no_grad()
    def adjust_targets(
        self, head: Any, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[int, StageTargets]:
        """Set the quality of each label stage's positives."""
        final = head.final_boxes(batch)
        rated = {}
        for index, target in targets.items():
            boxes, valid = final
            coder = head.stages[index].bbox_coder
            if self.boxes == 'next' and coder is not None:
                boxes, valid = refine_boxes(
                    coder, target.boxes, target.positive, batch.deltas[index]
                )
            rated[index] = replace(target, quality=_quality(target, boxes, valid))
        return rated


def _quality(target: StageTargets, boxes: Tensor, valid: Tensor) -> Tensor:
    """Return the IoU of the positives' boxes, (N, A). 0 where a box is not valid."""
    return torch.where(valid, target.positive_ious(boxes), 0)
