"""Record the boxes and scores of all anchors during a detector's own inference.

mmdet's heads pass the raw outputs and prior anchors of each image to
``_predict_by_feat_single``. Intercepting that call works for every anchor-based head
that inherits it, whatever comes before (our variants) or after (score threshold,
NMS), and leaves the detections as they are.
"""

from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor, scale_boxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

METHOD = '_predict_by_feat_single'
ARGUMENTS = ['cls_score_list', 'bbox_pred_list', 'score_factor_list', 'mlvl_priors']
ARGUMENTS += ['img_meta', 'cfg', 'rescale', 'with_nms']


class NoAnchorsError(TypeError):
    """Raised for a model without a head whose anchors can be recorded."""


class AnchorOutputs(NamedTuple):
    """Anchors of one image (A anchors, C classes, S regression stages).

    Attributes:
        boxes: S + 1 tensors (A, 4), xyxy in pixels of the original image: the prior
            anchors, then the boxes after each regression. Only the last ones are
            clipped to the image, as at inference.
        scores: (A, C), the scores that rank boxes, times centerness if there is one.
        candidates: ``bboxes``, ``scores`` and ``labels`` over the head's score
            threshold before NMS, in pixels of the original image.
        nms_iou: IoU above which NMS suppresses a box.
    """

    boxes: list[Tensor]
    scores: Tensor
    candidates: InstanceData
    nms_iou: float


# The head is Any: attributes of an nn.Module have no types.
def find_head(model: nn.Module) -> Any:
    """Return the anchor-based head of a detector.

    Raises:
        NoAnchorsError: If there is none. The message names what the model has.
    """
    head = getattr(model, 'bbox_head', None)
    generator = getattr(head, 'prior_generator', None)
    if head is None or not hasattr(generator, 'gen_base_anchors'):
        what = 'no bbox_head' if head is None else type(head).__name__
        raise NoAnchorsError(
            f'{type(model).__name__} with {what} has no anchors; only anchor-based '
            'single-stage heads can be recorded'
        )
    known = [getattr(kind, METHOD) for kind in (BaseDenseHead, GFLHead)]
    if getattr(type(head), METHOD, None) not in known:
        raise NoAnchorsError(f'{type(head).__name__} overrides {METHOD}')
    return head


class Recorder:
    """Context manager that records the anchors of each image that a head predicts.

    Args:
        head: A head from :func:`find_head`.

    Example:
        >>> with Recorder(find_head(model)) as recorder:
        ...     samples = model.test_step(batch)
        >>> outputs = recorder.take()  # one AnchorOutputs per image
    """

    def __init__(self, head: Any) -> None:
        self.head = head
        self._outputs: list[AnchorOutputs] = []

    def __enter__(self) -> 'Recorder':
        """Intercept the head's post-processing."""
        original = getattr(self.head, METHOD)

        def record(*args: Any, **kwargs: Any) -> InstanceData:
            call = {**dict(zip(ARGUMENTS, args)), **kwargs}
            candidates = original(**{**call, 'with_nms': False})
            self._outputs.append(_outputs(self.head, call, candidates))
            return original(**call)

        # On the instance: the class, and so every other model, keeps its method.
        self.head.__dict__[METHOD] = record
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Restore the head."""
        del self.head.__dict__[METHOD]

    def take(self) -> list[AnchorOutputs]:
        """Return the outputs since the last call, one per image."""
        outputs, self._outputs = self._outputs, []
        return outputs


def _outputs(head: Any, call: dict, candidates: InstanceData) -> AnchorOutputs:
    """Score all anchors of all levels, and decode them stage by stage."""
    img_meta, factors = call['img_meta'], call.get('score_factor_list') or [None]
    scores = torch.cat([_activate(head, x) for x in call['cls_score_list']])
    if factors[0] is not None:
        scores = _combine(head, scores, factors, img_meta)
    priors, strides = call['mlvl_priors'], head.prior_generator.strides
    levels = zip(priors, call['bbox_pred_list'], strides)
    decoded = [_decode(head, *level, img_meta['img_shape']) for level in levels]
    boxes = [torch.cat(stage) for stage in zip(*decoded)]
    if call.get('rescale'):
        to_original = [1 / factor for factor in img_meta['scale_factor']]
        boxes = [scale_boxes(stage, to_original) for stage in boxes]
    nms = (call.get('cfg') or head.test_cfg).get('nms') or {}
    return AnchorOutputs(boxes, scores, candidates, float(nms.get('iou_threshold', 1)))


def _decode(
    head: Any, priors: Tensor, deltas: Tensor, stride: tuple, img_shape: tuple
) -> list[Tensor]:
    """Return the prior boxes of a level, and the boxes after each regression."""
    boxes, deltas = [get_box_tensor(priors)], deltas.permute(1, 2, 0)
    if hasattr(head, 'integral'):  # GFL and the like regress distributions
        distances = head.integral(deltas) * stride[0]
        centers = head.anchor_center(boxes[0])
        decoded = head.bbox_coder.decode(centers, distances, max_shape=img_shape)
        return [*boxes, get_box_tensor(decoded)]
    deltas = deltas.reshape(-1, head.bbox_coder.encode_size)
    coders = getattr(head.bbox_coder, 'stages', [head.bbox_coder])
    for coder, part in zip(coders, deltas.split(coders[0].encode_size, dim=1)):
        max_shape = img_shape if len(boxes) == len(coders) else None
        decoded = coder.decode(boxes[-1], part, max_shape=max_shape)
        boxes.append(get_box_tensor(decoded))
    return boxes


def _combine(head: Any, scores: Tensor, factors: list, img_meta: dict) -> Tensor:
    """Combine scores (A, C) with each level's score factors as the head does."""
    factor = torch.cat([x.permute(1, 2, 0).reshape(-1, 1).sigmoid() for x in factors])
    rows = InstanceData(
        bboxes=scores.new_zeros(scores.numel(), 4),
        scores=scores.flatten(),
        score_factors=factor.expand_as(scores).flatten(),
    )
    options = dict(rescale=False, with_nms=False, img_meta=img_meta)
    rows = head._bbox_post_process(rows, ConfigDict(min_bbox_size=-1), **options)
    return rows.scores.view_as(scores)


def _activate(head: Any, logits: Tensor) -> Tensor:
    """Return class scores (A, C) of a level's logits (A / HW · channels, H, W)."""
    logits = logits.permute(1, 2, 0).reshape(-1, head.cls_out_channels)
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        return head.loss_cls.get_activation(logits)
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]


def nearest(boxes: Tensor, gt_bboxes: Tensor, chunk: int = 16) -> tuple[Tensor, Tensor]:
    """Find the nearest ground truth of each box.

    Args:
        boxes: (A, 4), xyxy in pixels.
        gt_bboxes: (G, 4), xyxy in pixels.
        chunk: Ground truths compared at once; memory is O(A · chunk).

    Returns:
        The highest IoU (A,), 0 without ground truth, and the index of that ground
        truth (A,) int64, -1 for a box that touches none.
    """
    best = boxes.new_zeros(len(boxes))
    index = torch.full((len(boxes),), -1, dtype=torch.long, device=boxes.device)
    for start in range(0, len(gt_bboxes), chunk):
        part = gt_bboxes[start : start + chunk].to(boxes)
        iou, which = bbox_overlaps(boxes, part).nan_to_num(0).max(dim=1)
        better = iou > best
        best = torch.where(better, iou, best)
        index = torch.where(better, which + start, index)
    return best, index


def rescore_by_iou(
    head: Any, candidates: InstanceData, gt_bboxes: Tensor, gt_labels: Tensor
) -> InstanceData:
    """Return the detections that NMS would keep if boxes were ranked by true IoU.

    Args:
        head: The head, whose own NMS is used.
        candidates: ``bboxes``, ``scores`` and ``labels`` before NMS.
        gt_bboxes: (G, 4), xyxy in the pixels of the candidates.
        gt_labels: (G,) int64.

    Returns:
        Detections scored by their IoU with the nearest object of their class.
    """
    bboxes = get_box_tensor(candidates.bboxes)
    scores = torch.zeros_like(candidates.scores)
    for label in gt_labels.unique():
        own = candidates.labels == label
        iou, _ = nearest(bboxes[own], gt_bboxes[gt_labels == label])
        scores[own] = iou.to(scores)
    oracle = InstanceData(bboxes=bboxes, scores=scores, labels=candidates.labels)
    return head._bbox_post_process(
        oracle, cfg=head.test_cfg, rescale=False, with_nms=True, img_meta={}
    )
