"""Max-IoU assignment of refined anchors, batched."""

from typing import Any, Optional

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class SecondPassAssigner(BaseAssigner):
    """Assigns ground truth to boxes that were already regressed once.

    A box is positive where its highest IoU is at least ``pos_iou_thr``,
    negative where it is below ``neg_iou_thr``, ignored between. Nothing is
    ever forced positive (no low-quality matches). Boxes in ignore regions are
    treated as :class:`mmdet.models.task_modules.MaxIoUAssigner` does, with the
    base assigner's setting unless one is given here.

    Assigned indices are mmdet's: -1 ignored, 0 negative, i + 1 for ground
    truth i.

    Args:
        pos_iou_thr: Lowest IoU of a positive (the paper's Table 2: 0.6).
        neg_iou_thr: A highest IoU below this is a negative (0.5).
        ignore_iof_thr: Overlap with an ignore region above which a box is
            ignored; not positive: no such rule. ``None``: the base assigner's.
        ignore_wrt_candidates: Whether that overlap is relative to the box's
            own area (else: the region's). ``None``: the base assigner's.
        iou_calculator: Config of the IoU calculator.
        chunk_size: Ground truths looked at together. Memory is
            O(boxes · chunk_size), whatever the number of ground truths.

    Raises:
        ValueError: If the thresholds are not 0 <= neg <= pos <= 1, or
            ``chunk_size`` is below 1.
    """

    def __init__(
        self,
        pos_iou_thr: float = 0.6,
        neg_iou_thr: float = 0.5,
        ignore_iof_thr: Optional[float] = None,
        ignore_wrt_candidates: Optional[bool] = None,
        iou_calculator: Optional[dict] = None,
        chunk_size: int = 8,
    ) -> None:
        if not 0 <= neg_iou_thr <= pos_iou_thr <= 1:
            raise ValueError(
                f'SecondPassAssigner needs 0 <= neg_iou_thr <= pos_iou_thr <= 1, '
                f'got neg_iou_thr={neg_iou_thr} and pos_iou_thr={pos_iou_thr}; '
                "the paper's are neg_iou_thr=0.5, pos_iou_thr=0.6"
            )
        if chunk_size < 1:
            raise ValueError(f'chunk_size must be at least 1, got {chunk_size}')
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.iou_calculator = TASK_UTILS.build(
            iou_calculator or ConfigDict(type='BboxOverlaps2D')
        )
        self.chunk_size = chunk_size

    def inherit_ignore_rule(self, base_assigner: BaseAssigner) -> None:
        """Take the ignore settings not given here from the base assigner."""
        for name in ('ignore_iof_thr', 'ignore_wrt_candidates'):
            if getattr(self, name) is None:
                setattr(self, name, getattr(base_assigner, name, None))

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: Optional[InstanceData] = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Assign one image's boxes; mmdet's assigner interface.

        Args:
            pred_instances: ``priors`` of shape (A, 4), xyxy in pixels.
            gt_instances: ``bboxes`` (G, 4), xyxy in pixels, ``labels`` (G,).
            gt_instances_ignore: ``bboxes`` of ignore regions, (I, 4).
            **kwargs: Unused, as in mmdet's assigners.

        Returns:
            mmdet's assign result over the A boxes.
        """
        boxes = get_box_tensor(pred_instances.priors)
        gt_bboxes = get_box_tensor(gt_instances.bboxes)
        ignore = boxes.new_zeros((0, 4))
        if gt_instances_ignore is not None:
            ignore = get_box_tensor(gt_instances_ignore.bboxes)
        gt_inds, max_overlaps = self.assign_batch(boxes[None], [gt_bboxes], [ignore])
        gt_inds, max_overlaps = gt_inds[0], max_overlaps[0]
        labels = torch.full_like(gt_inds, -1)
        positive = gt_inds > 0
        labels[positive] = gt_instances.labels[gt_inds[positive] - 1]
        return AssignResult(len(gt_bboxes), gt_inds, max_overlaps, labels=labels)

    @torch.no_grad()
    def assign_batch(
        self, boxes: Tensor, gt_bboxes: list[Tensor], ignore_bboxes: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Assign the boxes of a batch of images.

        Args:
            boxes: Shape (N, A, 4), xyxy in pixels, finite.
            gt_bboxes: Ground truth of each image, (G_i, 4), xyxy in pixels.
            ignore_bboxes: Ignore regions of each image, (I_i, 4).

        Returns:
            ``gt_inds``, (N, A) long: -1 ignored, 0 negative, i + 1 for ground
            truth i; and the highest IoU of each box, (N, A): 0 in an image
            without ground truth, -1 in ignore regions.
        """
        best, best_index = self._running_best(boxes, gt_bboxes, 'iou')
        num_gts = torch.tensor([len(b) for b in gt_bboxes], device=boxes.device)
        if self.ignore_iof_thr is not None and self.ignore_iof_thr > 0:
            mode = 'iof' if self.ignore_wrt_candidates is not False else 'iof_region'
            inside, _ = self._running_best(boxes, ignore_bboxes, mode)
            best = best.masked_fill(inside > self.ignore_iof_thr, -1)
        best = torch.where(num_gts[:, None] > 0, best, best.new_zeros(()))

        gt_inds = torch.full_like(best_index, -1)
        gt_inds[(best >= 0) & (best < self.neg_iou_thr)] = 0
        positive = best >= self.pos_iou_thr
        gt_inds = torch.where(positive, best_index + 1, gt_inds)
        # As in mmdet: without ground truth everything is background, even
        # inside an ignore region.
        gt_inds = gt_inds.masked_fill(num_gts[:, None] == 0, 0)
        return gt_inds, best

    def _running_best(
        self, boxes: Tensor, others: list[Tensor], mode: str
    ) -> tuple[Tensor, Tensor]:
        """Highest overlap (N, A) with any of ``others``, and its first index."""
        best = boxes.new_full(boxes.shape[:2], -1)
        best_index = boxes.new_zeros(boxes.shape[:2], dtype=torch.long)
        padded = torch.nn.utils.rnn.pad_sequence(
            [other.to(boxes) for other in others], batch_first=True
        )
        counts = torch.tensor([len(other) for other in others], device=boxes.device)
        for start in range(0, padded.shape[1], self.chunk_size):
            chunk = padded[:, start : start + self.chunk_size]
            if mode == 'iof_region':
                overlaps = self.iou_calculator(chunk, boxes, mode='iof')
                overlaps = overlaps.transpose(1, 2)
            else:
                overlaps = self.iou_calculator(boxes, chunk, mode=mode)
            index = torch.arange(start, start + chunk.shape[1], device=boxes.device)
            padding = index >= counts[:, None]
            overlaps = overlaps.masked_fill(padding[:, None], -1)
            chunk_best, chunk_index = overlaps.max(dim=2)
            # Strictly better only: of equal ground truths the first one wins.
            better = chunk_best > best
            best = torch.where(better, chunk_best, best)
            best_index = torch.where(better, chunk_index + start, best_index)
        return best, best_index
