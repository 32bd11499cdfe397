"""Consistent optimization, from top to bottom.

A single-shot detector labels an anchor by where it starts, but its score is
used for where the box ends up. Here the one classification output ``c`` meets
the labels of the prior anchors A⁰ *and* those of the refined anchors
A¹ = decode(A⁰, t⁰), and a further regression output t¹ starts from A¹:

    L_cls = Σ_k w_k · L_cls(c, labels of Aᵏ) / N_k            (Eq. 1)
    L_reg = Σ_k L_reg(tᵏ, targets of Aᵏ) / N_k                 (Eq. 2)

Stage 0 is the base head itself, called unchanged. Aᵏ is detached: no gradient
flows through a decode. Inference chains the decodes and leaves scores alone.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Optional, Union

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import cat_boxes, get_box_tensor
from mmdet.utils import InstanceList, OptInstanceList, reduce_mean
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..task_modules import ChainedBBoxCoder, SecondPassAssigner
from .options import broadcast, check_stages, default_assigners
from .staged_conv import replace_box_output


class StageTargets(NamedTuple):
    """What one stage k >= 1 is trained on; A anchors an image, N images.

    Attributes:
        boxes: Aᵏ, (N, A, 4), float32, xyxy in pixels, not clipped.
        labels: (N, A) long; ``num_classes`` is background.
        label_weights: (N, A); 0 where the anchor is ignored.
        positives: Flat indices (P,) of the positives in N·A.
        gt_bboxes: Ground truth of each positive, (P, 4), xyxy in pixels.
        avg_factor: The stage's normaliser N_k, a scalar tensor.
    """

    boxes: Tensor
    labels: Tensor
    label_weights: Tensor
    positives: Tensor
    gt_bboxes: Tensor
    avg_factor: Tensor


class ConsistentMixin:
    """Adds later stages to an mmdet :class:`AnchorHead`.

    Use as ``class ConsistentXHead(ConsistentMixin, XHead)`` with
    ``box_output_convs`` naming the head's box output(s).

    Args:
        label_stages: Label sets that the classification output meets, the
            prior anchors' included (Table 3's #cls).
        reg_stages: Regression outputs, the base head's included (#reg).
        stage_loss_weights: One weight a label set, (1, α) of Eq. 1. Default:
            all 1. (0, 1) trains on the refined labels alone.
        stage_assigners: Assigner of the stages 1, 2, …: one config for all, or
            a list. Default: :class:`SecondPassAssigner` at 0.6/0.5, then
            0.7/0.6. Any assigner of mmdet's works, image by image.
        stage_bbox_coders: Box coder of the regression stages 1, 2, …: one
            config for all, or a list. Default: the base head's.
        cls_normalizer: ``'stage'``: each label set is divided by its own
            number of positives; ``'first'``: all by the first stage's (the
            paper's single N_cls).

    Raises:
        ValueError: If an option is impossible; says which, and the way out.
    """

    box_output_convs: tuple[str, ...] = ()

    def __init__(
        self,
        *args,
        label_stages: int = 2,
        reg_stages: int = 2,
        stage_loss_weights: Optional[Sequence[float]] = None,
        stage_assigners: Union[dict, Sequence[dict], None] = None,
        stage_bbox_coders: Union[dict, Sequence[dict], None] = None,
        cls_normalizer: str = 'stage',
        **kwargs,
    ) -> None:
        weights = check_stages(
            label_stages, reg_stages, stage_loss_weights, cls_normalizer
        )
        super().__init__(*args, **kwargs)
        self.label_stages = label_stages
        self.reg_stages = reg_stages
        self.stage_loss_weights = weights
        self.cls_normalizer = cls_normalizer
        self._first_stage: dict = {}

        num_later = max(label_stages, reg_stages) - 1
        if self.train_cfg:
            configs = broadcast('stage_assigners', stage_assigners, num_later)
            configs = configs or default_assigners(num_later)
            self.stage_assigners = [TASK_UTILS.build(config) for config in configs]
            for assigner in self.stage_assigners:
                if isinstance(assigner, SecondPassAssigner):
                    assigner.inherit_ignore_rule(self.assigner)
            self._build_stage_losses(num_later)

        configs = broadcast('stage_bbox_coders', stage_bbox_coders, reg_stages - 1)
        later_coders = [TASK_UTILS.build(config) for config in configs or []]
        later_coders = later_coders or [self.bbox_coder] * (reg_stages - 1)
        self.stage_coders = [self.bbox_coder, *later_coders]
        if reg_stages > 1:
            # For good: mmdet's predict path, TTA and exporters find it here.
            self.bbox_coder = ChainedBBoxCoder(self.stage_coders)
            self._replace_box_outputs()

    # ------------------------------------------------------------ building

    def _replace_box_outputs(self) -> None:
        """Give every box output the later stages' deltas."""
        box = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
        identity = [coder.encode(box, box)[0] for coder in self.stage_coders[1:]]
        for name in self.box_output_convs:
            replace_box_output(self, name, identity)

    def _build_stage_losses(self, num_later: int) -> None:
        """Copy the base losses: a loss with a memory (GHM) keeps one a stage."""
        self.stage_loss_cls = nn.ModuleList(
            copy.deepcopy(self.loss_cls) for _ in range(num_later)
        )
        self.stage_loss_bbox = nn.ModuleList(
            copy.deepcopy(self.loss_bbox) for _ in range(num_later)
        )

    # ---------------------------------------------------------------- loss

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict:
        """Compute the losses of all stages (Eq. 1 and 2).

        Args:
            cls_scores: Logits of each level, (N, A·C, H, W).
            bbox_preds: Deltas of each level, (N, A·S·4, H, W).
            batch_gt_instances: ``bboxes`` (G, 4), xyxy in pixels, and
                ``labels`` (G,) of each image.
            batch_img_metas: ``img_shape`` and ``pad_shape`` of each image.
            batch_gt_instances_ignore: ``bboxes`` of the ignore regions.

        Returns:
            ``loss_cls`` and ``loss_bbox`` exactly as the base head gives them,
            ``loss_cls_s1``, ``loss_bbox_s1``, … for the later stages, and
            ``num_pos``, ``num_pos_s1``, … (not optimised).
        """
        stage_deltas = self._split_stages(bbox_preds)
        with self._as_base_head():
            losses = super().loss_by_feat(
                cls_scores,
                stage_deltas[0],
                batch_gt_instances,
                batch_img_metas,
                batch_gt_instances_ignore,
            )
        if self.stage_loss_weights[0] != 1:
            weight = self.stage_loss_weights[0]
            losses['loss_cls'] = [loss * weight for loss in losses['loss_cls']]
        first = self._first_stage
        self._first_stage = {}
        losses['num_pos'] = first['num_pos']

        num_stages = max(self.label_stages, self.reg_stages)
        if num_stages == 1:
            return losses

        logits = self._flatten(cls_scores, self.cls_out_channels)
        deltas = [self._flatten(level_deltas, 4) for level_deltas in stage_deltas]
        boxes = self._prior_boxes(first['anchor_list'])
        usable = self._usable_anchors(boxes, first['valid_flag_list'], batch_img_metas)
        for stage in range(1, num_stages):
            boxes, usable = self._refine(stage, boxes, usable, deltas[stage - 1])
            targets = self._stage_targets(
                stage, boxes, usable, batch_gt_instances, batch_gt_instances_ignore
            )
            losses[f'num_pos_s{stage}'] = boxes.new_tensor(len(targets.positives))
            weight = self.stage_loss_weights[stage] if stage < self.label_stages else 0
            if weight != 0:
                avg_factor = targets.avg_factor
                if self.cls_normalizer == 'first':
                    avg_factor = first['avg_factor']
                losses[f'loss_cls_s{stage}'] = weight * self.stage_cls_loss(
                    stage, logits, targets, avg_factor
                )
            if stage < self.reg_stages:
                losses[f'loss_bbox_s{stage}'] = self.stage_bbox_loss(
                    stage, deltas[stage], targets
                )
        return losses

    def stage_cls_loss(
        self,
        stage: int,
        logits: Tensor,
        targets: StageTargets,
        avg_factor: Union[Tensor, float],
    ) -> Tensor:
        """Classification loss of stage k >= 1: L_cls(c, labels of Aᵏ) / N.

        Args:
            stage: k.
            logits: c, (N, A, C), shared by all stages.
            targets: The stage's targets.
            avg_factor: The normaliser.

        Returns:
            A scalar.
        """
        return self.stage_loss_cls[stage - 1](
            logits.flatten(0, 1),
            targets.labels.flatten(),
            targets.label_weights.flatten(),
            avg_factor=avg_factor,
        )

    def stage_bbox_loss(
        self, stage: int, deltas: Tensor, targets: StageTargets
    ) -> Tensor:
        """Regression loss of stage k >= 1, over its positives alone.

        Args:
            stage: k.
            deltas: tᵏ, (N, A, 4).
            targets: The stage's targets.

        Returns:
            A scalar; 0 with a graph where the stage has no positive.
        """
        pred = deltas.flatten(0, 1)[targets.positives]
        if len(pred) == 0:
            return pred.sum()
        pred, target = self._regression_pair(stage, pred, targets)
        return self.stage_loss_bbox[stage - 1](
            pred, target, torch.ones_like(target), avg_factor=targets.avg_factor
        )

    def _regression_pair(
        self, stage: int, pred: Tensor, targets: StageTargets
    ) -> tuple[Tensor, Tensor]:
        """Prediction and target of the positives: deltas, or decoded boxes."""
        coder = self.stage_coders[stage]
        boxes = targets.boxes.flatten(0, 1)[targets.positives]
        if self.reg_decoded_bbox:
            return get_box_tensor(coder.decode(boxes, pred)), targets.gt_bboxes
        return pred, coder.encode(boxes, targets.gt_bboxes)

    # ------------------------------------------------------------- targets

    def get_targets(self, anchor_list, valid_flag_list, *args, **kwargs) -> tuple:
        """The base head's targets, remembered for the later stages.

        In distributed training the normaliser becomes the mean over the ranks,
        so that N processes train as one with N times the batch.
        """
        targets = list(
            super().get_targets(anchor_list, valid_flag_list, *args, **kwargs)
        )
        labels = torch.cat(targets[0], dim=1)
        positive = (labels >= 0) & (labels < self.num_classes)
        targets[4] = self._mean_over_ranks(targets[4], labels.device)
        self._first_stage = dict(
            anchor_list=anchor_list,
            valid_flag_list=valid_flag_list,
            num_pos=positive.sum().float(),
            avg_factor=targets[4],
        )
        return tuple(targets)

    @torch.no_grad()
    def _refine(
        self, stage: int, boxes: Tensor, usable: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Aᵏ = decode(Aᵏ⁻¹, tᵏ⁻¹), detached, in float32, not clipped.

        Args:
            stage: k.
            boxes: Aᵏ⁻¹, (N, A, 4), xyxy in pixels.
            usable: (N, A) bool.
            deltas: tᵏ⁻¹, (N, A, 4).

        Returns:
            Aᵏ and the anchors still usable. One that is not finite or has no
            area is out for good; it keeps its last sound box.
        """
        with torch.autocast(boxes.device.type, enabled=False):
            refined = self.stage_coders[stage - 1].decode(
                boxes.flatten(0, 1), deltas.detach().float().flatten(0, 1)
            )
        refined = get_box_tensor(refined).view_as(boxes)
        size = refined[..., 2:] - refined[..., :2]
        sound = refined.isfinite().all(-1) & (size > 0).all(-1)
        sound &= size.prod(-1) > 0
        return torch.where(sound[..., None], refined, boxes), usable & sound

    @torch.no_grad()
    def _stage_targets(
        self,
        stage: int,
        boxes: Tensor,
        usable: Tensor,
        batch_gt_instances: InstanceList,
        batch_gt_instances_ignore: OptInstanceList,
    ) -> StageTargets:
        """Labels and box targets of Aᵏ; see :class:`StageTargets`."""
        gt_bboxes = [get_box_tensor(gt.bboxes) for gt in batch_gt_instances]
        gt_inds = self._assign(
            stage, boxes, usable, batch_gt_instances, batch_gt_instances_ignore
        )
        per_image = (gt_inds > 0).sum(dim=1).clamp(min=1)
        avg_factor = per_image.sum()
        if not isinstance(self.sampler, PseudoSampler):
            gt_inds, avg_factor = self._sample(
                boxes, usable, gt_inds, batch_gt_instances
            )

        positives = (gt_inds.flatten() > 0).nonzero().squeeze(1)
        counts = torch.tensor([len(gts) for gts in gt_bboxes], device=boxes.device)
        offsets = counts.cumsum(0) - counts
        gt_index = (gt_inds - 1 + offsets[:, None]).flatten()[positives]
        gt_labels = torch.cat([gt.labels for gt in batch_gt_instances])

        labels = torch.full_like(gt_inds, self.num_classes)
        labels.view(-1)[positives] = gt_labels[gt_index]
        label_weights = (gt_inds >= 0).to(boxes.dtype)
        if self.train_cfg['pos_weight'] > 0:
            label_weights.view(-1)[positives] = self.train_cfg['pos_weight']
        return StageTargets(
            boxes=boxes,
            labels=labels,
            label_weights=label_weights,
            positives=positives,
            gt_bboxes=torch.cat(gt_bboxes)[gt_index].to(boxes),
            avg_factor=self._mean_over_ranks(avg_factor, boxes.device),
        )

    def _assign(
        self,
        stage: int,
        boxes: Tensor,
        usable: Tensor,
        batch_gt_instances: InstanceList,
        batch_gt_instances_ignore: OptInstanceList,
    ) -> Tensor:
        """Assigned ground truth (N, A): -1 ignored, 0 negative, else index + 1."""
        assigner = self.stage_assigners[stage - 1]
        ignored = batch_gt_instances_ignore or [None] * len(boxes)
        if isinstance(assigner, SecondPassAssigner):
            gt_inds, _ = assigner.assign_batch(
                boxes,
                [get_box_tensor(gt.bboxes) for gt in batch_gt_instances],
                [
                    boxes.new_zeros((0, 4)) if i is None else get_box_tensor(i.bboxes)
                    for i in ignored
                ],
            )
            return gt_inds.masked_fill(~usable, -1)
        gt_inds = torch.full(usable.shape, -1, device=boxes.device)
        for image, gt_instances in enumerate(batch_gt_instances):
            result = assigner.assign(
                InstanceData(priors=boxes[image][usable[image]]),
                gt_instances,
                ignored[image],
            )
            gt_inds[image, usable[image]] = result.gt_inds
        return gt_inds

    def _sample(
        self,
        boxes: Tensor,
        usable: Tensor,
        gt_inds: Tensor,
        batch_gt_instances: InstanceList,
    ) -> tuple[Tensor, float]:
        """Let the base head's sampler choose; all others become ignored."""
        sampled = torch.full_like(gt_inds, -1)
        avg_factor = 0
        for image, gt_instances in enumerate(batch_gt_instances):
            candidates = usable[image].nonzero().squeeze(1)
            assigned = gt_inds[image, candidates]
            labels = torch.full_like(assigned, -1)
            labels[assigned > 0] = gt_instances.labels[assigned[assigned > 0] - 1]
            result = self.sampler.sample(
                AssignResult(
                    len(gt_instances), assigned, boxes.new_zeros(len(assigned)), labels
                ),
                InstanceData(priors=boxes[image, candidates]),
                gt_instances,
            )
            for chosen in (result.pos_inds, result.neg_inds):
                sampled[image, candidates[chosen]] = assigned[chosen]
            avg_factor += result.avg_factor
        return sampled, avg_factor

    # ------------------------------------------------------------- helpers

    @contextmanager
    def _as_base_head(self) -> Iterator[None]:
        """The base head's own coder, while the base head computes its loss."""
        coder = self.bbox_coder
        self.bbox_coder = self.stage_coders[0]
        try:
            yield
        finally:
            self.bbox_coder = coder

    def _split_stages(self, bbox_preds: list[Tensor]) -> list[list[Tensor]]:
        """Levels of (N, A·S·4, H, W) to stages of levels of (N, A·4, H, W)."""
        if self.reg_stages == 1:
            return [bbox_preds]
        staged = [pred.unflatten(1, (-1, self.reg_stages, 4)) for pred in bbox_preds]
        return [
            [pred[:, :, stage].flatten(1, 2) for pred in staged]
            for stage in range(self.reg_stages)
        ]

    @staticmethod
    def _flatten(levels: list[Tensor], channels: int) -> Tensor:
        """Levels of (N, A·channels, H, W) to one (N, ΣHWA, channels)."""
        rows = [x.permute(0, 2, 3, 1).reshape(len(x), -1, channels) for x in levels]
        return torch.cat(rows, dim=1)

    @staticmethod
    def _prior_boxes(anchor_list: list[list]) -> Tensor:
        """A⁰ of the batch, (N, A, 4), float32, xyxy in pixels."""
        boxes = [get_box_tensor(cat_boxes(levels)) for levels in anchor_list]
        return torch.stack(boxes).float()

    def _usable_anchors(
        self, boxes: Tensor, valid_flag_list: list[list], batch_img_metas: list[dict]
    ) -> Tensor:
        """The anchors (N, A) that the base head trains on."""
        flags = [
            anchor_inside_flags(
                boxes[image],
                torch.cat(valid_flag_list[image]),
                img_meta['img_shape'][:2],
                self.train_cfg['allowed_border'],
            )
            for image, img_meta in enumerate(batch_img_metas)
        ]
        return torch.stack(flags)

    @staticmethod
    def _mean_over_ranks(
        avg_factor: Union[Tensor, float], device: torch.device
    ) -> Union[Tensor, float]:
        """A normaliser averaged over the processes, never below 1."""
        if get_world_size() == 1:
            return avg_factor
        total = torch.as_tensor(avg_factor, dtype=torch.float32, device=device)
        return reduce_mean(total).clamp(min=1)
