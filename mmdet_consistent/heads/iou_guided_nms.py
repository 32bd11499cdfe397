"""Suppression that goes by how well boxes fit, rather than by their scores."""

import torch
from mmcv.ops import batched_nms
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from torch import Tensor

CHUNK = 512  # suppressed boxes that meet all kept ones at a time: bounds the memory
NMS_KEYS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


def iou_guided_nms(
    boxes: Tensor, scores: Tensor, confidences: Tensor, labels: Tensor, cfg: dict
) -> tuple[Tensor, Tensor]:
    """IoU-Net's Algorithm 1, class by class.

    Args:
        boxes: (M, 4), xyxy.
        scores: Classification scores, (M,).
        confidences: Predicted IoUs, (M,); equal ones are ranked by score.
        labels: (M,) long.
        cfg: ``test_cfg.nms``: mmcv's ``nms`` with its ``iou_threshold``.

    Returns:
        Indices (K,) of the kept boxes, the most confident first, and for each the
        highest score (K,) among itself and those that it suppressed.
    """
    if len(boxes) == 0:
        return labels, scores
    # Ranks in place of confidences: equal ones, such as a box's for several classes or
    # those of a fresh output, go by their scores.
    order = scores.argsort(descending=True, stable=True)
    order = order[confidences[order].argsort(descending=True, stable=True)]
    ranks = torch.empty(len(order), device=boxes.device)
    ranks[order] = torch.arange(len(order), 0, -1, device=boxes.device).float()
    _, keep = batched_nms(boxes, ranks, labels, cfg)
    is_kept = torch.zeros_like(labels, dtype=torch.bool)
    is_kept[keep] = True
    best = scores[keep]
    for rows in (~is_kept).nonzero().squeeze(1).split(CHUNK):
        covers = bbox_overlaps(boxes[rows], boxes[keep]) > cfg['iou_threshold']
        covers &= labels[rows, None] == labels[keep]
        # argmax: the first, which is the most confident one, as it suppressed the box.
        # None covers it where mmcv, which moves classes apart, has rounded an IoU.
        found = torch.where(covers.any(dim=1), scores[rows], 0)
        first = covers.to(torch.uint8).argmax(dim=1)
        best = best.scatter_reduce(0, first, found, 'amax')
    return keep, best


def check_suppression(cfg: ConfigDict) -> None:
    """Refuse what IoU-guided suppression can't follow.

    Args:
        cfg: mmdet's ``test_cfg``.

    Raises:
        ValueError: If its ``nms`` is anything but a plain one, class by class.
    """
    nms = cfg.get('nms') or {}
    unknown = sorted(set(nms) - NMS_KEYS)
    plain = nms.get('type', 'nms') == 'nms' and 'iou_threshold' in nms
    if not plain or nms.get('class_agnostic', False) or unknown:
        raise ValueError(
            "nms='iou_guided' follows "
            "test_cfg.nms=dict(type='nms', iou_threshold=…), class by class, with "
            f'split_thr at most; got {dict(nms)}: change it, or set nms=None'
        )
