"""Ground truth of a batch, and the training targets of each stage."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Union

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.models.task_modules.samplers import BaseSampler, PseudoSampler
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..task_modules import match_max_iou, paired_iou, rule_of


@dataclass(frozen=True)
class StageTargets:
    """Training targets of one stage (N images, A anchors and G ground truths each).

    Attributes:
        boxes: Aᵏ, (N, A, 4), or (1, A, 4) if all images share them; float32, xyxy in
            pixels, not clipped.
        labels: (N, A) long; ``num_classes`` is background.
        label_weights: (N, A) float; 0 for an ignored anchor.
        positive: (N, A) bool.
        gt_index: Matched ground truth of each positive, (N, A) long; any valid index
            elsewhere.
        gt_bboxes: Ground truths, (N, G, 4), float32, xyxy in pixels.
        avg_factor: The stage's normaliser N_k, a scalar.
        cls_avg_factor: Normaliser of its classification loss; ``None`` for the same.
        quality: Target scores of the positives, (N, A) float, 0 elsewhere, for losses
            on quality; ``None`` otherwise.
        select_rows: Whether the box loss may select the positives. On a GPU the host
            would wait for their number, so all rows are computed and masked.
    """

    boxes: Tensor
    labels: Tensor
    label_weights: Tensor
    positive: Tensor
    gt_index: Tensor
    gt_bboxes: Tensor
    avg_factor: Any
    cls_avg_factor: Any = None
    quality: Optional[Tensor] = None
    select_rows: bool = True

    @property
    def label_factor(self) -> Any:
        """Normaliser of the classification loss."""
        return self.avg_factor if self.cls_avg_factor is None else self.cls_avg_factor

    def box_rows(self, select: bool) -> Tensor:
        """Return flat indices (P,) into N·A: the positives, or all rows."""
        if select:
            return self.positive.flatten().nonzero().squeeze(1)
        return torch.arange(self.positive.numel(), device=self.positive.device)

    def boxes_of(self, rows: Tensor, boxes: Optional[Tensor] = None) -> Tensor:
        """Return the boxes of flat rows (P,): (P, 4), of Aᵏ unless others are given."""
        flat = (self.boxes if boxes is None else boxes).flatten(0, 1)
        # Shared boxes stand there once, rows count through all images.
        return flat[rows % len(flat)]

    def matched_bboxes(self, rows: Tensor) -> Tensor:
        """Return the ground truths matched with flat rows (P,): (P, 4)."""
        num_images, num_gts = self.gt_bboxes.shape[:2]
        first = torch.arange(num_images, device=rows.device) * num_gts
        flat_index = (self.gt_index + first[:, None]).flatten()[rows]
        return self.gt_bboxes.flatten(0, 1)[flat_index]

    @torch.no_grad()
    def positive_ious(self, boxes: Tensor) -> Tensor:
        """Compute the IoU of each positive's box with its matched ground truth.

        Args:
            boxes: (N, A, 4) or (1, A, 4), xyxy in pixels, finite.

        Returns:
            (N, A) float32; 0 where the anchor is not positive.
        """
        rows = self.box_rows(self.select_rows)
        ious = self.positive.new_zeros(self.positive.numel(), dtype=torch.float32)
        own = self.boxes_of(rows, boxes.float())
        ious[rows] = paired_iou(own, self.matched_bboxes(rows))
        return torch.where(self.positive, ious.view_as(self.positive), 0)


class GroundTruth(NamedTuple):
    """Ground truth of a batch, padded to the image that has most.

    Attributes:
        bboxes: (N, G, 4) float32, xyxy in pixels, padded with 0; G is at least 1.
        labels: (N, G) long, padded with -1.
        counts: Number of ground truths per image, (N,) long.
        ignore_bboxes: Ignore regions, (N, I, 4), xyxy in pixels, padded with 0;
            ``None`` if there are none.
        instances: The same as mmdet passes it, per image.
        instances_ignore: Likewise; ``None`` for an image without ignore regions.
    """

    bboxes: Tensor
    labels: Tensor
    counts: Tensor
    ignore_bboxes: Optional[Tensor]
    instances: InstanceList
    instances_ignore: list

    @classmethod
    def pad(
        cls, instances: InstanceList, instances_ignore: OptInstanceList
    ) -> 'GroundTruth':
        """Pad the ground truth of a batch.

        Args:
            instances: ``bboxes`` and ``labels`` of each image.
            instances_ignore: ``bboxes`` of each image's ignore regions.
        """
        labels = [gt.labels for gt in instances]
        bboxes = [get_box_tensor(gt.bboxes).float() for gt in instances]
        if not any(map(len, labels)):
            bboxes = [boxes.new_zeros((1, 4)) for boxes in bboxes]
            labels = [label.new_full((1,), -1) for label in labels]
        padded_labels = pad_sequence(labels, batch_first=True, padding_value=-1)
        ignored = list(instances_ignore or [None] * len(instances))
        ignore_bboxes = None
        if any(i is not None and len(i) > 0 for i in ignored):
            none = bboxes[0].new_zeros((0, 4))
            regions = [
                none if i is None else get_box_tensor(i.bboxes).float() for i in ignored
            ]
            ignore_bboxes = pad_sequence(regions, batch_first=True)
        return cls(
            bboxes=pad_sequence(bboxes, batch_first=True),
            labels=padded_labels,
            counts=(padded_labels >= 0).sum(dim=1),  # no list travels to the device
            ignore_bboxes=ignore_bboxes,
            instances=instances,
            instances_ignore=ignored,
        )

    def assign(
        self,
        boxes: Tensor,
        valid: Tensor,
        assigner: BaseAssigner,
        select_rows: Optional[bool] = None,
    ) -> Tensor:
        """Match boxes with the ground truths of their image.

        Max-IoU assigners match the whole batch at once, any other assigner image by
        image.

        Args:
            boxes: (N, A, 4), or (1, A, 4) if all images share them; float32, xyxy in
                pixels.
            valid: Boxes that take part, (N, A) bool.
            assigner: Assigner of the stage.
            select_rows: See :func:`match_max_iou`.

        Returns:
            (N, A) long: -1 ignored, 0 negative, ``i + 1`` for ground truth i.
        """
        rule = rule_of(assigner)
        if rule is not None:
            gt_inds, _ = match_max_iou(
                boxes,
                self.bboxes,
                self.counts,
                rule,
                valid,
                self.ignore_bboxes,
                select_rows=select_rows,
            )
            return gt_inds
        boxes = boxes.expand(*valid.shape, 4)
        gt_inds = torch.full(valid.shape, -1, device=boxes.device)
        for image, gt_instances in enumerate(self.instances):
            result = assigner.assign(
                InstanceData(priors=boxes[image][valid[image]]),
                gt_instances,
                self.instances_ignore[image],
            )
            gt_inds[image, valid[image]] = result.gt_inds
        return gt_inds

    def sample(
        self, boxes: Tensor, valid: Tensor, gt_inds: Tensor, sampler: BaseSampler
    ) -> tuple[Tensor, Optional[float]]:
        """Let a sampler choose anchors, image by image; all others become ignored.

        Args:
            boxes: As for :meth:`assign`.
            valid: As for :meth:`assign`.
            gt_inds: Result of :meth:`assign`.
            sampler: mmdet's sampler.

        Returns:
            ``gt_inds`` after the choice, (N, A), and the sampler's normaliser; ``None``
            if the sampler keeps every anchor.
        """
        if isinstance(sampler, PseudoSampler):
            return gt_inds, None
        boxes = boxes.expand(*valid.shape, 4)
        sampled = torch.full_like(gt_inds, -1)
        avg_factor = 0
        for image, gt_instances in enumerate(self.instances):
            candidates = valid[image].nonzero().squeeze(1)
            assigned = gt_inds[image, candidates]
            labels = torch.full_like(assigned, -1)
            labels[assigned > 0] = gt_instances.labels[assigned[assigned > 0] - 1]
            priors = boxes[image, candidates]
            overlaps = priors.new_zeros(len(priors))
            if len(gt_instances) > 0:
                gt_bboxes = get_box_tensor(gt_instances.bboxes).float()
                overlaps = bbox_overlaps(priors, gt_bboxes).amax(dim=1)
            result = sampler.sample(
                AssignResult(len(gt_instances), assigned, overlaps, labels),
                InstanceData(priors=priors),
                gt_instances,
            )
            for chosen in (result.pos_inds, result.neg_inds):
                sampled[image, candidates[chosen]] = assigned[chosen]
            avg_factor += result.avg_factor
        return sampled, avg_factor

    def targets(
        self,
        boxes: Tensor,
        gt_inds: Tensor,
        num_classes: int,
        pos_weight: float,
        avg_factor: Union[Tensor, float, None] = None,
        select_rows: bool = True,
    ) -> StageTargets:
        """Turn matched ground truths into the targets of a stage.

        Args:
            boxes: As for :meth:`assign`.
            gt_inds: Result of :meth:`assign`.
            num_classes: Label of background.
            pos_weight: Label weight of positives; 1 if not above 0.
            avg_factor: Normaliser. Default: the positives of each image, at least 1 per
                image, added up, as mmdet counts them.
            select_rows: See :class:`StageTargets`.
        """
        positive = gt_inds > 0
        gt_index = (gt_inds - 1).clamp(min=0)
        label_weights = (gt_inds >= 0).to(boxes.dtype)
        if pos_weight > 0:
            label_weights = torch.where(positive, pos_weight, label_weights)
        if avg_factor is None:
            avg_factor = positive.sum(dim=1).clamp(min=1).sum()  # of each image
        return StageTargets(
            boxes=boxes,
            labels=torch.where(positive, self.labels.gather(1, gt_index), num_classes),
            label_weights=label_weights,
            positive=positive,
            gt_index=gt_index,
            gt_bboxes=self.bboxes,
            avg_factor=avg_factor,
            select_rows=select_rows,
        )
