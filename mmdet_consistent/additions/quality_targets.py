"""Scores that are trained to be the IoU of the box that they are used for."""

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..heads.addition import Addition, TrainingBatch
from ..heads.targets import StageTargets

BOXES = ('final', 'next')


@MODELS.register_module()
class QualityTargets(Addition):
    """Consistent targets for the quality focal loss.

    Generalized Focal Loss (Li et al., NeurIPS 2020) trains the score of a positive's
    class towards the IoU of its predicted box. With several regressions there are
    several such boxes. At test time a score ranks the box after the **last** one, so
    that is whose IoU every label stage has as target here:

        quality = IoU(b, g),  b = decode(…decode(A⁰, t⁰)…, tˢ⁻¹), detached

    with g the ground truth that the anchor is matched with in that stage. A box that
    is not finite or has no area fits nothing: 0. Everything else has 0 as in
    mmdet's loss; weights and normalisers stay as they are.

    ::

        loss_cls=dict(
            type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        additions=[dict(type='QualityTargets')]

    mmdet's ``RetinaHead`` can't feed this loss; ``ConsistentRetinaHead`` can, by this
    addition, with one stage too. Where the base head computes stage 0 by itself (GFL)
    the later stages alone are concerned, and its first label set keeps the base
    head's quality.

    Nothing is added to the network, and nothing changes at inference. The loss is
    mmdet's, which looks for its positives: on a GPU the host waits for it once a label
    stage. Logits and quality are in float32, under AMP too.

    Args:
        boxes: ``'final'``: as above. ``'next'``: stage k's quality is that of the
            boxes of its own regression, Aᵏ⁺¹ (of the last there is, where it has
            none), to see what the consistency does.

    Raises:
        ValueError: If ``boxes`` is neither, or the head doesn't train by a quality
            focal loss, or can't compute it.
    """

    def __init__(self, boxes: str = 'final') -> None:
        super().__init__()
        if boxes not in BOXES:
            raise ValueError(f'QualityTargets.boxes must be in {BOXES}, got {boxes!r}')
        self.boxes = boxes

    def attach(self, head: nn.Module) -> None:
        """Refuse heads whose loss isn't on quality."""
        kind = type(head).__name__
        loss = getattr(head, 'loss_cls', None)
        if not isinstance(loss, QualityFocalLoss) or loss.activated:
            found = 'has none' if loss is None else f'has {loss}'
            raise ValueError(
                'QualityTargets needs a head with loss_cls=dict('
                f"type='QualityFocalLoss', activated=False, …), but {kind} {found}: "
                'give RetinaNet or GFL that loss, or leave QualityTargets out'
            )
        knows_labels_alone = (
            type(head).loss_by_feat_single is AnchorHead.loss_by_feat_single
        )
        if head.train_cfg and knows_labels_alone and head.first_rule() is None:
            raise ValueError(
                f"QualityTargets: {kind}'s own first-stage loss can't take a quality, "
                'and it can be computed here only with reduction="mean" in loss_cls, '
                'a loss_bbox that is a plain sum (L1Loss, GIoULoss, …), '
                "sampler=dict(type='PseudoSampler') and a max-IoU assigner: use these"
            )
        super().attach(head)

    @torch.no_grad()
    def adjust_targets(
        self, head: nn.Module, batch: TrainingBatch, targets: dict[int, StageTargets]
    ) -> dict[int, StageTargets]:
        """The quality of each label stage's positives."""
        final = head.final_boxes(batch)
        rated = {}
        for stage, target in targets.items():
            boxes, usable = final
            if self.boxes == 'next' and stage < head.reg_stages:
                boxes, usable = head.refine(
                    stage + 1, target.boxes, target.positive, batch.deltas[stage]
                )
            rated[stage] = target._replace(quality=_quality(target, boxes, usable))
        return rated


def _quality(target: StageTargets, boxes: Tensor, usable: Tensor) -> Tensor:
    """IoU of the positives' boxes, (N, A); 0 where the box isn't sound."""
    return torch.where(usable, target.positive_ious(boxes), 0)
