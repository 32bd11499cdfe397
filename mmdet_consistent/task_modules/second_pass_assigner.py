"""Max-IoU assignment of refined anchors, batched."""

from typing import Any, Optional

import torch
from mmdet.models.task_modules.assigners import (
    AssignResult,
    BaseAssigner,
    BboxOverlaps2D,
    MaxIoUAssigner,
)
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData

from .max_iou import MatchRule, match_max_iou


@TASK_UTILS.register_module()
class SecondPassAssigner(BaseAssigner):
    """Assigns ground truths to boxes that have been regressed already.

    A box is positive if its highest IoU is at least ``pos_iou_thr``, negative if it is
    below ``neg_iou_thr``, and ignored in between. No box is forced positive: there are
    no low-quality matches. Boxes in ignore regions are treated as by
    :class:`mmdet.models.task_modules.MaxIoUAssigner`, with the base assigner's setting
    unless one is given here.

    Memory is O(boxes), whatever the number of ground truths.

    Args:
        pos_iou_thr: Lowest IoU of a positive (the paper's Table 2: 0.6).
        neg_iou_thr: A highest IoU below this is a negative (0.5).
        ignore_iof_thr: Overlap with an ignore region above which a box is ignored. Not
            positive: no such rule. ``None``: the base assigner's.
        ignore_wrt_candidates: Whether that overlap is relative to the box's own area,
            else to the region's. ``None``: the base assigner's.

    Raises:
        ValueError: If the thresholds are not numbers with 0 <= neg <= pos <= 1, or
            another option has the wrong type.
    """

    def __init__(
        self,
        pos_iou_thr: float = 0.6,
        neg_iou_thr: float = 0.5,
        ignore_iof_thr: Optional[float] = None,
        ignore_wrt_candidates: Optional[bool] = None,
    ) -> None:
        for name, value in (
            ('pos_iou_thr', pos_iou_thr),
            ('neg_iou_thr', neg_iou_thr),
            ('ignore_iof_thr', -1 if ignore_iof_thr is None else ignore_iof_thr),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(
                    f'SecondPassAssigner: {name} must be a number, got {value!r}'
                )
        if not isinstance(ignore_wrt_candidates, (bool, type(None))):
            raise ValueError(
                'SecondPassAssigner: ignore_wrt_candidates must be True, False or '
                f"None (the base assigner's), got {ignore_wrt_candidates!r}"
            )
        if not 0 <= neg_iou_thr <= pos_iou_thr <= 1:
            raise ValueError(
                f'SecondPassAssigner needs 0 <= neg_iou_thr <= pos_iou_thr <= 1, '
                f'got neg_iou_thr={neg_iou_thr} and pos_iou_thr={pos_iou_thr}; '
                "the paper's are neg_iou_thr=0.5, pos_iou_thr=0.6"
            )
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates

    def inherit_ignore_rule(self, base_assigner: BaseAssigner) -> None:
        """Take over the base assigner's ignore settings where none were given."""
        for name in ('ignore_iof_thr', 'ignore_wrt_candidates'):
            if getattr(self, name) is None:
                setattr(self, name, getattr(base_assigner, name, None))

    @property
    def rule(self) -> MatchRule:
        """Rule for :func:`match_max_iou`."""
        return MatchRule(
            pos_iou_thr=self.pos_iou_thr,
            neg_iou_thr=self.neg_iou_thr,
            ignore_iof_thr=-1 if self.ignore_iof_thr is None else self.ignore_iof_thr,
            ignore_wrt_candidates=self.ignore_wrt_candidates is not False,
        )

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: Optional[InstanceData] = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Assign the boxes of one image (mmdet's assigner interface).

        Args:
            pred_instances: ``priors`` (A, 4), xyxy in pixels.
            gt_instances: ``bboxes`` (G, 4), xyxy in pixels, ``labels`` (G,).
            gt_instances_ignore: ``bboxes`` of ignore regions, (I, 4).
            **kwargs: Ignored, as in mmdet's assigners.

        Returns:
            mmdet's assign result for the A boxes.
        """
        boxes = get_box_tensor(pred_instances.priors)
        gt_bboxes = get_box_tensor(gt_instances.bboxes)
        ignore = None
        if gt_instances_ignore is not None:
            ignore = get_box_tensor(gt_instances_ignore.bboxes)[None]
        gt_inds, max_overlaps = match_max_iou(
            boxes[None],
            gt_bboxes[None],
            torch.tensor([len(gt_bboxes)], device=boxes.device),
            self.rule,
            ignore_bboxes=ignore,
        )
        gt_inds, max_overlaps = gt_inds[0], max_overlaps[0]
        labels = torch.full_like(gt_inds, -1)
        positive = gt_inds > 0
        labels[positive] = gt_instances.labels[gt_inds[positive] - 1]
        return AssignResult(len(gt_bboxes), gt_inds, max_overlaps, labels=labels)


def rule_of(assigner: BaseAssigner) -> Optional[MatchRule]:
    """Return the rule by which a whole batch can be matched as the assigner would.

    Returns:
        The rule of a :class:`SecondPassAssigner` or of mmdet's ``MaxIoUAssigner``.
        ``None`` for any other assigner, and for options that the rule cannot express.
    """
    if isinstance(assigner, SecondPassAssigner):
        own = type(assigner).assign is SecondPassAssigner.assign
        return assigner.rule if own else None
    if type(assigner) is not MaxIoUAssigner:
        return None
    if getattr(assigner, 'perm_repeat_gt_cfg', None) is not None:  # mmdet >= 3.2
        return None
    calculator = assigner.iou_calculator
    plain = type(calculator) is BboxOverlaps2D and calculator.dtype is None
    # A tuple selects other negatives, and mmdet treats an int as no threshold.
    if not plain or type(assigner.neg_iou_thr) is not float:
        return None
    if assigner.min_pos_iou < 0 or assigner.pos_iou_thr < 0:
        return None
    return MatchRule(*(getattr(assigner, name) for name in MatchRule._fields))
