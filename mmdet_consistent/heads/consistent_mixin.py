"""Consistent optimization, from top to bottom.

A single-shot detector labels an anchor by where it starts, but its score is used for
where the box ends up. Here the one classification output c is trained under the labels
of the prior anchors A⁰ *and* of the refined anchors A¹ = decode(A⁰, t⁰), and a further
regression output t¹ starts from A¹:

    L_cls = Σ_k w_k · L_cls(c, labels of Aᵏ) / N                    (Eq. 1)
    L_reg = Σ_k L_reg(tᵏ, targets of Aᵏ) / N_k                       (Eq. 2)

N is the first stage's number of positives, as in the paper, or else each stage's own
N_k (``cls_normalizer``). Aᵏ is detached: no gradient flows through a decode. Inference
chains the decodes and leaves the scores alone. ``tests/reference/consistent.py`` states
the same in plain loops.

==========  ===============================================  =====================
symbol      tensor                                           shape
==========  ===============================================  =====================
c           ``cls_scores``, logits of each level             (N, A·C, H, W)
t⁰, t¹, …   ``bbox_preds``, all deltas of each level         (N, A·(S·4 + E), H, W)
tᵏ          ``deltas[k]``, one stage's, all levels           (N, ΣHWA, 4)
Aᵏ          ``boxes``, xyxy in pixels, float32               (N or 1, ΣHWA, 4)
            ``valid``, anchors that take part                (N, ΣHWA) bool
==========  ===============================================  =====================

N images, A anchors per place, C classes, S regression stages, E values of additions;
``losses/layout.py`` draws the memory layouts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional, Union

from mmdet.utils import InstanceList, OptInstanceList
from torch import Tensor

from ..losses.layout import flatten_deltas
from ..utils.device import may_select_rows
from .addition import TrainingBatch
from .anchors import refine_boxes
from .base import ConsistentBase
from .first_stage import mean_over_ranks
from .options import StageOptions
from .stage import Stage
from .targets import GroundTruth, StageTargets


class ConsistentMixin(ConsistentBase):
    """Adds later stages to an mmdet :class:`AnchorHead`.

    Use as ``class ConsistentXHead(ConsistentMixin, XHead)``; :class:`ConsistentBase`
    lists the methods by which such a class describes its base.

    Args:
        label_stages: Number of label sets supervising the classification output,
            including that of the prior anchors (Table 3's #cls). Default: 2.
        reg_stages: Number of regression outputs, with the base head's (#reg).
            Default: 2.
        stage_loss_weights: One weight per label set, (1, α) of Eq. 1. Default: all 1.
            (0, 1) trains on the refined labels alone.
        stage_assigners: Assigner of the stages 1, 2, …: one config for all, or a list.
            Default: :class:`SecondPassAssigner` at 0.6/0.5, then 0.7/0.6. Max-IoU
            assigners match the whole batch at once, others image by image.
        stage_bbox_coders: Box coder of the regression stages 1, 2, …: one config for
            all, or a list. Default: the base head's.
        cls_normalizer: ``'first'``: divide the loss under each label set by the first
            stage's number of positives (Eq. 1 to the letter); ``'stage'``: by its own.
            Default: ``'first'``, but ``'stage'`` for a cascade's separate outputs and
            for a base head that does not tell its normaliser.
        sync_normalizer: Average the normalisers over the processes, so that N processes
            train as one with N times the batch. Default: as the base head does; mmdet's
            RetinaNet and SSD heads do not.
        variant: Detector of Figure 4: ``'consistent'`` (d, the default), ``'cascade'``
            (b), ``'gated_cascade'`` (c), ``'baseline'`` (a); or a dict with that
            ``type`` and the options of :class:`Variant`.
        additions: Extensions beyond the paper: configs of :class:`Addition`.

    Raises:
        ValueError: If an option is invalid. The message names it and suggests a fix.
    """

    def __init__(
        self,
        *args: Any,
        label_stages: Optional[int] = None,
        reg_stages: Optional[int] = None,
        stage_loss_weights: Optional[Sequence[float]] = None,
        stage_assigners: Union[dict, Sequence[dict], None] = None,
        stage_bbox_coders: Union[dict, Sequence[dict], None] = None,
        cls_normalizer: Optional[str] = None,
        sync_normalizer: bool = False,
        variant: Union[str, dict] = 'consistent',
        additions: Sequence[dict] = (),
        **kwargs: Any,
    ) -> None:
        options = StageOptions.check(
            label_stages, reg_stages, stage_loss_weights, cls_normalizer, variant
        )
        super().__init__(*args, **kwargs)
        self.label_stages, self.reg_stages = options.label_stages, options.reg_stages
        self.variant = options.variant
        self.cls_normalizer = cls_normalizer or self.default_normalizer()
        self.sync_normalizer = sync_normalizer or self.base_syncs_normalizer()
        self.build_stages(options.loss_weights, stage_bbox_coders, stage_assigners)
        self.build_additions(additions)

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
        other_outputs: Sequence[list[Tensor]] = (),
    ) -> dict:
        """Compute the losses of all stages.

        Args:
            cls_scores: Logits of each level, (N, A·C, H, W); of a cascade,
                (N, K·A·C, H, W) for K label stages. Any floating dtype.
            bbox_preds: Box outputs of each level, (N, A·(S·4 + E), H, W).
            batch_gt_instances: ``bboxes`` (G, 4), xyxy in pixels, and ``labels`` (G,)
                of each image.
            batch_img_metas: ``img_shape`` and ``pad_shape`` of each image.
            batch_gt_instances_ignore: ``bboxes`` of the ignore regions.
            other_outputs: Further outputs of the base head's ``forward``, for its loss.

        Returns:
            ``loss_cls`` and ``loss_bbox``, the base head's; ``loss_cls_s1``,
            ``loss_bbox_s1``, … of the later stages, as lists where the base head
            returns lists; and, only logged, ``num_pos``, ``num_pos_s1``, ….
        """
        logits = self.split_scores(cls_scores)
        preds = self.split_preds(bbox_preds)
        batch_gt_instances = self.trained_truths(batch_gt_instances)
        truths = (batch_gt_instances, batch_img_metas, batch_gt_instances_ignore)
        first = self.first_stage.compute(
            self, super().loss_by_feat, logits[0], preds[0], *other_outputs, *truths
        )
        trained = self.stages if self.first_stage.is_fused else self.stages[1:]
        if not trained:
            return first.losses

        gts = GroundTruth.pad(batch_gt_instances, batch_gt_instances_ignore)
        preds[0] = self.first_stage_deltas(preds[0])
        deltas = [flatten_deltas(levels) for levels in preds]
        boxes, valid = self.prior_anchors(cls_scores, batch_img_metas)  # A⁰
        targets: dict[int, StageTargets] = {}
        for stage in self.stages:
            if stage.previous:  # Aᵏ = decode(Aᵏ⁻¹, tᵏ⁻¹), detached
                boxes, valid = self.refine(stage.previous, boxes, valid, deltas)
            if stage in trained:  # labels and box targets of Aᵏ
                targets[stage.index] = self.assign(stage, boxes, valid, gts)
        batch = TrainingBatch(cls_scores, bbox_preds, deltas, boxes, valid, gts)
        for addition in self.additions:
            targets = addition.adjust_targets(self, batch, targets)
        targets = self.normalise(targets, first.avg_factor)

        losses = {
            **first.losses,
            **first.in_form(self.cls_losses(logits, targets)),  # Eq. 1
            **first.in_form(self.box_losses(deltas, targets)),  # Eq. 2
        }
        for stage in trained:
            positive = targets[stage.index].positive
            losses[stage.log_name('num_pos')] = positive.sum().float()
        for addition in self.additions:
            losses.update(addition.losses(self, batch, targets))
        return losses

    def cls_losses(
        self, logits: list[list[Tensor]], targets: dict[int, StageTargets]
    ) -> dict[str, Tensor]:
        """Eq. 1: w_k · L_cls(c, labels of Aᵏ) / N for every label stage.

        A cascade has one output c per stage, all others one for all stages.
        """
        stages = [s for s in self.stages if s.index in targets and s.weight is not None]
        if len(logits) == 1:
            # A weight of 0 saves the work, but the logits must stay in the graph.
            stages = [s for s in stages if s.weight != 0 or s.index == 0]
            labels = [targets[s.index] for s in stages]
            values = self.label_losses(logits[0], stages, labels)
        else:
            values = [
                self.label_losses(logits[s.index], [s], [targets[s.index]])[0]
                for s in stages
            ]
        return {
            s.log_name('loss_cls'): value if s.weight == 1 else value * s.weight
            for s, value in zip(stages, values)
        }

    def box_losses(
        self, deltas: list[Tensor], targets: dict[int, StageTargets]
    ) -> dict[str, Tensor]:
        """Eq. 2: L_reg(tᵏ, targets of Aᵏ) / N_k for every regression stage."""
        return {
            s.log_name('loss_bbox'): s.box_loss(deltas[s.index], targets[s.index])
            for s in self.stages[: self.reg_stages]
            if s.index in targets
        }

    def refine(
        self, stage: Stage, boxes: Tensor, valid: Tensor, deltas: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return Aᵏ⁺¹ = decode(Aᵏ, tᵏ), detached, and which of it are still valid."""
        return refine_boxes(stage.bbox_coder, boxes, valid, deltas[stage.index])

    def assign(
        self, stage: Stage, boxes: Tensor, valid: Tensor, gts: GroundTruth
    ) -> StageTargets:
        """Match Aᵏ with the ground truths, and return its labels and box targets."""
        select_rows = may_select_rows(boxes, self.select_rows)
        gt_inds = gts.assign(boxes, valid, stage.assigner, select_rows)
        gt_inds, avg_factor = gts.sample(boxes, valid, gt_inds, self.sampler)
        pos_weight = self.train_cfg['pos_weight']
        return gts.targets(
            boxes, gt_inds, self.num_classes, pos_weight, avg_factor, select_rows
        )

    def normalise(
        self, targets: dict[int, StageTargets], first_avg_factor: Any
    ) -> dict[int, StageTargets]:
        """Settle N and N_k. The base head's own code may have computed N_0."""
        boxes = [target.avg_factor for target in targets.values()]
        labels = [target.label_factor for target in targets.values()]
        if self.sync_normalizer:
            device = next(iter(targets.values())).labels.device
            shared = mean_over_ranks(boxes + labels, device)
            boxes, labels = shared[: len(boxes)], shared[len(boxes) :]
        if self.cls_normalizer == 'first':
            labels = [boxes[0] if 0 in targets else first_avg_factor] * len(boxes)
        return {
            index: replace(target, avg_factor=n_box, cls_avg_factor=n_cls)
            for (index, target), n_box, n_cls in zip(targets.items(), boxes, labels)
        }

    def final_boxes(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Return where the last regression takes a batch's anchors. See `refine`."""
        last = self.stages[-1]
        if last.bbox_coder is None:  # the last label set is that of the final boxes
            return batch.boxes, batch.valid
        return self.refine(last, batch.boxes, batch.valid, batch.deltas)
