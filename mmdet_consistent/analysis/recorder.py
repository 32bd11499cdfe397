"""What a single-shot head saw and said about every anchor, in one pass.

mmdet's heads hand each image to ``_predict_by_feat_single``: raw outputs of all
levels, the prior anchors, and the settings. Standing there for a moment gives
everything for any anchor-based head that leaves this step as it is, whatever
happens before (our variants) or after (score threshold, NMS), and the detections
stay the head's own.
"""

from typing import Any, NamedTuple, Optional

import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor, scale_boxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn


class NoAnchorsError(TypeError):
    """The model has no head whose anchors can be looked at."""


class AnchorOutputs(NamedTuple):
    """One image's anchors; A anchors, C classes, S regression stages.

    Attributes:
        boxes: S + 1 tensors (A, 4), xyxy in pixels of the original image: the
            prior anchors, then the boxes after each regression. Only the last
            are clipped to the image, as at inference.
        scores: (A, C), what ranks the boxes (a centerness, if any, included).
        candidates: All boxes over the head's score threshold before NMS:
            ``bboxes``, ``scores``, ``labels``, in the original image.
        nms_iou: The IoU over which NMS suppresses a box.
    """

    boxes: list[Tensor]
    scores: Tensor
    candidates: InstanceData
    nms_iou: float


def find_head(model: nn.Module) -> nn.Module:
    """The anchor-based head of a detector.

    Raises:
        NoAnchorsError: If there is none; says what the model has instead.
    """
    head = getattr(model, 'bbox_head', None)
    generator = getattr(head, 'prior_generator', None)
    if head is None or not hasattr(generator, 'gen_base_anchors'):
        what = 'no bbox_head' if head is None else type(head).__name__
        raise NoAnchorsError(
            f'{type(model).__name__} with {what} has no anchors of the single-shot kind'
        )
    own = getattr(type(head), '_predict_by_feat_single', None)
    known = (BaseDenseHead, GFLHead)
    if own not in [kind._predict_by_feat_single for kind in known]:
        raise NoAnchorsError(
            f'{type(head).__name__} makes boxes of its anchors in a way of its own'
        )
    return head


class Recorder:
    """Context manager that keeps what the head says about each image.

    Args:
        head: A head that :func:`find_head` gave.

    Example:
        >>> with Recorder(find_head(model)) as recorder:
        ...     samples = model.test_step(batch)
        >>> outputs = recorder.take()  # one AnchorOutputs an image
    """

    def __init__(self, head: nn.Module) -> None:
        self.head = head
        self._outputs: list[AnchorOutputs] = []

    def __enter__(self) -> 'Recorder':
        """Stand between the head and its post-processing."""
        original = self.head._predict_by_feat_single

        def record(*args: Any, **kwargs: Any) -> InstanceData:
            names = ('cls_score_list', 'bbox_pred_list', 'score_factor_list')
            names += ('mlvl_priors', 'img_meta', 'cfg', 'rescale', 'with_nms')
            call = {**dict(zip(names, args)), **kwargs}
            plain = {**call, 'with_nms': False}
            self._outputs.append(_outputs(self.head, call, original(**plain)))
            return original(**call)

        # On the instance: the class, and with it all other models, stay alone.
        self.head.__dict__['_predict_by_feat_single'] = record
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Step aside."""
        del self.head.__dict__['_predict_by_feat_single']

    def take(self) -> list[AnchorOutputs]:
        """The outputs since the last call, one an image."""
        outputs, self._outputs = self._outputs, []
        return outputs


def _outputs(head: nn.Module, call: dict, candidates: InstanceData) -> AnchorOutputs:
    """Decode all anchors of all levels, stage by stage."""
    img_meta = call['img_meta']
    levels: list[list[Tensor]] = []
    scores = []
    factors = call.get('score_factor_list') or [None]
    for index, priors in enumerate(call['mlvl_priors']):
        deltas = call['bbox_pred_list'][index]
        boxes = _decode(head, index, priors, deltas, img_meta['img_shape'])
        levels.append(boxes)
        logits = call['cls_score_list'][index].permute(1, 2, 0)
        level_scores = _activate(head, logits.reshape(-1, head.cls_out_channels))
        if factors[0] is not None:
            factor = factors[index].permute(1, 2, 0).reshape(-1, 1).sigmoid()
            level_scores = _combine(head, level_scores, factor, img_meta)
        scores.append(level_scores)
    boxes = [torch.cat(stage) for stage in zip(*levels)]
    if call.get('rescale'):
        to_original = [1 / factor for factor in img_meta['scale_factor']]
        boxes = [scale_boxes(stage, to_original) for stage in boxes]
    cfg = call.get('cfg') or head.test_cfg
    nms = cfg.get('nms') or {}
    return AnchorOutputs(
        boxes, torch.cat(scores), candidates, float(nms.get('iou_threshold', 1.0))
    )


def _decode(
    head: nn.Module, level: int, priors: Tensor, deltas: Tensor, img_shape: tuple
) -> list[Tensor]:
    """Prior boxes of a level, and the boxes after each regression stage."""
    priors = get_box_tensor(priors)
    deltas = deltas.permute(1, 2, 0)
    if hasattr(head, 'integral'):  # GFL and its kin regress distributions
        distances = head.integral(deltas) * head.prior_generator.strides[level][0]
        centers = head.anchor_center(priors)
        boxes = head.bbox_coder.decode(centers, distances, max_shape=img_shape)
        return [priors, get_box_tensor(boxes)]
    deltas = deltas.reshape(-1, head.bbox_coder.encode_size)
    coders = getattr(head.bbox_coder, 'stages', [head.bbox_coder])
    boxes = [priors]
    for stage, coder in enumerate(coders):
        last = stage == len(coders) - 1
        size = coder.encode_size
        decoded = coder.decode(
            boxes[-1],
            deltas[:, stage * size : (stage + 1) * size],
            max_shape=img_shape if last else None,
        )
        boxes.append(get_box_tensor(decoded))
    return boxes


def _combine(head: nn.Module, scores: Tensor, factor: Tensor, img_meta: dict) -> Tensor:
    """Scores (A, C) and a factor for each anchor (A, 1), combined as the head does."""
    rows = InstanceData(
        bboxes=scores.new_zeros(scores.numel(), 4),
        scores=scores.flatten(),
        score_factors=factor.expand_as(scores).flatten(),
    )
    rows = head._bbox_post_process(
        rows,
        cfg=ConfigDict(min_bbox_size=-1),
        rescale=False,
        with_nms=False,
        img_meta=img_meta,
    )
    return rows.scores.view_as(scores)


def _activate(head: nn.Module, logits: Tensor) -> Tensor:
    """Class scores (A, C) of logits (A, C or C + 1), as the head does it."""
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        return head.loss_cls.get_activation(logits)
    if head.use_sigmoid_cls:
        return logits.sigmoid()
    return logits.softmax(-1)[:, :-1]


def nearest(boxes: Tensor, gt_bboxes: Tensor, chunk: int = 16) -> tuple[Tensor, Tensor]:
    """IoU with the nearest ground truth, and which one it is.

    Args:
        boxes: (A, 4), xyxy in pixels.
        gt_bboxes: (G, 4), xyxy in pixels.
        chunk: Ground truths looked at together: memory is O(A · chunk).

    Returns:
        The highest IoU (A,), 0 without ground truth, and its index (A,) long,
        -1 where no ground truth is touched.
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
    head: nn.Module, candidates: InstanceData, gt_bboxes: Tensor, gt_labels: Tensor
) -> Optional[InstanceData]:
    """Detections if boxes were ranked by their true IoU instead of the score.

    Args:
        head: The head, whose own NMS is used.
        candidates: ``bboxes``, ``scores``, ``labels`` before NMS.
        gt_bboxes: (G, 4), xyxy in pixels, as the candidates.
        gt_labels: (G,) long.

    Returns:
        The detections after NMS, scored by their IoU with the nearest object of
        their class.
    """
    bboxes = get_box_tensor(candidates.bboxes)
    scores = torch.zeros_like(candidates.scores)
    for label in gt_labels.unique():
        mine = candidates.labels == label
        scores[mine] = nearest(bboxes[mine], gt_bboxes[gt_labels == label])[0].to(
            scores
        )
    oracle = InstanceData(bboxes=bboxes, scores=scores, labels=candidates.labels)
    return head._bbox_post_process(
        oracle, cfg=head.test_cfg, rescale=False, with_nms=True, img_meta={}
    )
