"""Ground truth of a batch, and what each stage is trained on."""

from typing import NamedTuple, Optional

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.models.task_modules.samplers import BaseSampler
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..task_modules import MatchRule, match_max_iou, paired_iou


class StageTargets(NamedTuple):
    """What one stage is trained on; A anchors an image, N images, P rows.

    Attributes:
        boxes: Where the stage starts from, (N, A, 4), or (1, A, 4) where all
            images have the same; float32, xyxy in pixels, not clipped.
        labels: (N, A) long; ``num_classes`` is background.
        label_weights: (N, A); 0 where the anchor is ignored.
        positive: (N, A) bool.
        rows: Flat indices (P,) into N·A of the rows that the regression loss
            looks at: the positives, or, where choosing would make the host wait
            for a GPU, all.
        gt_bboxes: Matched ground truth of these rows, (P, 4), xyxy in pixels.
        avg_factor: The stage's normaliser N_k, a scalar.
        cls_avg_factor: That of its classification loss; ``None``: the same, which
            the head then fills in.
        quality: (N, A) float, for losses that want a score rather than a label:
            what a positive's should be; 0 elsewhere. ``None``: not used.
    """

    boxes: Tensor
    labels: Tensor
    label_weights: Tensor
    positive: Tensor
    rows: Tensor
    gt_bboxes: Tensor
    avg_factor: Tensor
    cls_avg_factor: Optional[Tensor] = None
    quality: Optional[Tensor] = None

    @torch.no_grad()
    def positive_ious(self, boxes: Tensor) -> Tensor:
        """IoU of boxes with the ground truths that the positives are matched with.

        Args:
            boxes: (N, A, 4) or (1, A, 4), xyxy in pixels, finite.

        Returns:
            (N, A), float32; 0 where the anchor is not positive.
        """
        boxes = boxes.float().flatten(0, 1)
        ious = self.positive.new_zeros(self.positive.numel(), dtype=torch.float32)
        ious[self.rows] = paired_iou(boxes[self.rows % len(boxes)], self.gt_bboxes)
        return torch.where(self.positive, ious.view_as(self.positive), 0)


class GroundTruth(NamedTuple):
    """A batch's ground truth, padded with zeros to the longest image.

    Attributes:
        bboxes: (N, G, 4), float32, xyxy in pixels; G is at least 1.
        labels: (N, G) long.
        counts: Ground truths of each image, (N,) long.
        ignore_bboxes: Ignore regions, (N, I, 4), or ``None`` if there are none.
        instances: The same, as mmdet hands it over, image by image.
        instances_ignore: Likewise; ``None`` for an image without.
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
        """Pad the ground truth of a batch."""
        labels = [gt.labels for gt in instances]
        bboxes = [get_box_tensor(gt.bboxes).float() for gt in instances]
        counts = [len(label) for label in labels]
        if max(counts) == 0:
            bboxes = [boxes.new_zeros((1, 4)) for boxes in bboxes]
            labels = [label.new_zeros((1,)) for label in labels]
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
            labels=pad_sequence(labels, batch_first=True),
            counts=torch.tensor(counts, device=bboxes[0].device),
            ignore_bboxes=ignore_bboxes,
            instances=instances,
            instances_ignore=ignored,
        )

    def match(self, boxes: Tensor, usable: Tensor, rule: MatchRule) -> Tensor:
        """Matched ground truth (N, A): -1 ignored, 0 negative, else index + 1."""
        gt_inds, _ = match_max_iou(
            boxes, self.bboxes, self.counts, rule, usable, self.ignore_bboxes
        )
        return gt_inds

    def assign(self, boxes: Tensor, usable: Tensor, assigner: BaseAssigner) -> Tensor:
        """The same by any assigner of mmdet's, image by image."""
        gt_inds = torch.full(usable.shape, -1, device=boxes.device)
        for image, gt_instances in enumerate(self.instances):
            result = assigner.assign(
                InstanceData(priors=boxes[image][usable[image]]),
                gt_instances,
                self.instances_ignore[image],
            )
            gt_inds[image, usable[image]] = result.gt_inds
        return gt_inds

    def sample(
        self, boxes: Tensor, usable: Tensor, gt_inds: Tensor, sampler: BaseSampler
    ) -> tuple[Tensor, float]:
        """Let a sampler choose, image by image; all others become ignored.

        Returns:
            ``gt_inds`` after the choice, (N, A), and the sampler's normaliser.
        """
        sampled = torch.full_like(gt_inds, -1)
        avg_factor = 0
        for image, gt_instances in enumerate(self.instances):
            candidates = usable[image].nonzero().squeeze(1)
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
        avg_factor: Optional[float] = None,
        choose_rows: bool = True,
    ) -> StageTargets:
        """Turn matched ground truth into labels, weights and box targets.

        Args:
            boxes: (N, A, 4) or (1, A, 4), xyxy in pixels.
            gt_inds: (N, A) long: -1 ignored, 0 negative, else index + 1.
            num_classes: The label of background.
            pos_weight: Label weight of positives; not positive: 1.
            avg_factor: The normaliser; default: the positives of each image,
                never below 1, added up, as mmdet counts them.
            choose_rows: Whether ``rows`` are the positives alone.
        """
        positive = gt_inds > 0
        gt_index = (gt_inds - 1).clamp(min=0)
        labels = self.labels.gather(1, gt_index)
        labels = torch.where(positive, labels, num_classes)
        label_weights = (gt_inds >= 0).to(boxes.dtype)
        if pos_weight > 0:
            label_weights = torch.where(positive, pos_weight, label_weights)
        if avg_factor is None:
            avg_factor = positive.sum(dim=1).clamp(min=1).sum()
        if choose_rows:
            rows = positive.flatten().nonzero().squeeze(1)
        else:
            rows = torch.arange(positive.numel(), device=boxes.device)
        first = torch.arange(len(gt_inds), device=boxes.device) * self.bboxes.shape[1]
        flat_index = (gt_index + first[:, None]).flatten()[rows]
        return StageTargets(
            boxes=boxes,
            labels=labels,
            label_weights=label_weights,
            positive=positive,
            rows=rows,
            gt_bboxes=self.bboxes.flatten(0, 1)[flat_index],
            avg_factor=avg_factor,
        )
