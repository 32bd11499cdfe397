"""Non-maximum suppression as mmcv defines it: the same indices, in the same order."""

from typing import Optional

import numpy as np
import torch
from torch import Tensor

from .torchvision import torchvision_operators

# Boxes per block on a CPU, where a block's overlaps fit its cache, and elsewhere.
CPU_BLOCK, GPU_BLOCK = 128, 2048
# Columns of overlaps at a time, per box of a block.
COLUMNS = 512
# Pairs are listed if at most one in so many could overlap, and at most so many.
MIN_SPARSITY, MAX_PAIRS = 32, 1 << 22


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep each box that overlaps no better one by more than the threshold.

    Args:
        boxes: (N, 4), xyxy in pixels.
        scores: (N,).
        iou_threshold: Largest IoU of two boxes that are both kept.
        offset: 0 or 1. A box's width is ``x2 - x1 + offset``.

    Returns:
        Indices of the kept boxes, int64, best first. Equal scores are ordered as
        ``scores.sort(descending=True)`` orders them, as in compiled mmcv.
    """
    order = scores.sort(0, descending=True)[1]
    if boxes.numel() == 0:
        return order
    boxes = boxes.detach()[order].float()
    # mmcv compares in float32; so must torchvision, whose threshold is a double.
    iou_threshold = float(np.float32(iou_threshold))
    operators = torchvision_operators() if boxes.is_cuda and not offset else None
    if operators is not None:
        ranks = torch.arange(len(order), 0, -1, device=boxes.device)
        return order[operators.nms(boxes, ranks.float(), iou_threshold)]
    sides = _with_areas(boxes, offset)
    kept = None
    if boxes.device.type == 'cpu' and iou_threshold >= 0:
        kept = _nms_by_pairs(sides, iou_threshold, offset)
    if kept is None:
        kept = _nms_by_blocks(sides, iou_threshold, offset)
    return order[kept]


def _with_areas(boxes: Tensor, offset: int) -> Tensor:
    """(5, N): x1, y1, x2, y2 and area."""
    x1, y1, x2, y2 = boxes.unbind(1)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    return torch.stack([x1, y1, x2, y2, area])


def _overlap(rows: Tensor, columns: Tensor, axis: int, offset: int) -> Tensor:
    """Extent of the intersections along an axis (0: x, 1: y), not negative."""
    extent = torch.minimum(rows[axis + 2], columns[axis + 2])
    extent -= torch.maximum(rows[axis], columns[axis])
    if offset:
        extent += offset
    return extent.clamp_(min=0)


def _iou(rows: Tensor, columns: Tensor, offset: int) -> Tensor:
    """IoU of boxes with areas, broadcast. Rounded as in mmcv's loop."""
    both = _overlap(rows, columns, 0, offset)
    both *= _overlap(rows, columns, 1, offset)
    either = rows[4] + columns[4]
    either -= both
    return both.div_(either)


def _nms_by_blocks(sides: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Compare each kept box with those that are left; the cost is N × kept.

    Args:
        sides: (5, N) sides and areas, best box first.
        iou_threshold: As in :func:`nms`.
        offset: As in :func:`nms`.
    """
    size = CPU_BLOCK if sides.device.type == 'cpu' else GPU_BLOCK
    left = torch.arange(sides.shape[1], device=sides.device)
    kept = []
    while left.numel():
        block = sides[:, :size, None]
        over = _iou(block, sides[:, None, :size], offset) > iou_threshold
        best = _greedy(over.triu_(1))
        kept.append(left[:size][best])
        sides, left, block = sides[:, size:], left[size:], block[:, best]
        alive = [
            ~(_iou(block, part[:, None], offset) > iou_threshold).any(0)
            for part in sides.split(COLUMNS if size == CPU_BLOCK else size, dim=1)
        ]
        if left.numel():
            chosen = torch.cat(alive)
            sides, left = sides[:, chosen], left[chosen]
    return torch.cat(kept)


def _greedy(over: Tensor) -> Tensor:
    """Mask of the boxes that no kept box of lower index suppresses.

    Each pass settles at least one box more, in practice nearly all of them.

    Args:
        over: (B, B) bool, upper triangular: whether the row's box, if it is kept,
            suppresses the column's.
    """
    kept = ~over.any(0)
    while True:
        again = ~(over & kept[:, None]).any(0)
        if torch.equal(again, kept):
            return kept
        kept = again


def _nms_by_pairs(sides: Tensor, iou_threshold: float, offset: int) -> Optional[Tensor]:
    """Compare only boxes that share an interval of x, if those are few.

    They are few where boxes are small, or belong to many classes, which mmcv shifts
    apart.

    Args:
        sides: (5, N) sides and areas, best box first.
        iou_threshold: As in :func:`nms`, not negative.
        offset: As in :func:`nms`.

    Returns:
        Indices of the kept boxes in ascending order; None if the pairs are many.
    """
    num = sides.shape[1]
    left, by_x = sides[0].sort()
    after = torch.arange(1, num + 1)
    # A box's partners begin between its x1 and its x2.
    ends = sides[2][by_x] + offset
    partners = torch.searchsorted(left, ends, right=True) - after
    partners.clamp_(min=0)
    total = int(partners.sum())
    if total > min(num * num // MIN_SPARSITY, MAX_PAIRS):
        return None
    first = torch.repeat_interleave(partners)
    begin = after - partners.cumsum(0) + partners
    second = torch.arange(total) + begin[first]
    sides = sides[:, by_x]
    near = _overlap(sides[:, first], sides[:, second], 1, offset).nonzero()[:, 0]
    first, second = first[near], second[near]
    over = _iou(sides[:, first], sides[:, second], offset) > iou_threshold
    first, second = by_x[first[over]], by_x[second[over]]
    better, worse = torch.minimum(first, second), torch.maximum(first, second)
    kept = torch.ones(num, dtype=torch.bool)
    while True:
        again = torch.ones(num, dtype=torch.bool)
        again[worse[kept[better]]] = False
        if torch.equal(again, kept):
            return kept.nonzero()[:, 0]
        kept = again


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one, and drop the lowest.

    Args:
        boxes: (N, 4), xyxy in pixels, on the CPU, as mmcv passes them.
        scores: (N,).
        dets: (N, 5); receives the kept boxes and their new scores.
        iou_threshold: IoU from which methods 0 and 1 lower a score.
        sigma: Width of method 2's Gaussian.
        min_score: Boxes whose score falls below it are dropped.
        method: 0: drop; 1: multiply by ``1 - IoU``; 2: by ``exp(-IoU² / sigma)``.
        offset: 0 or 1. A box's width is ``x2 - x1 + offset``.

    Returns:
        Indices of the kept boxes, int64, in the order of ``dets``.
    """
    num = len(boxes)
    index = torch.arange(num)
    # Rows: sides, area, score. A copy, because columns change places as in mmcv's
    # loop: that decides between equal scores.
    table = torch.cat([_with_areas(boxes.float(), offset), scores.float()[None]])
    for place in range(num):
        if place >= len(index):
            break
        left = table[5, place:].numpy()
        # In mmcv's loop no score is greater than NaN, and NaN than none.
        best = place if np.isnan(left[0]) else place + int(np.nanargmax(left))
        if best != place:
            table[:, [place, best]] = table[:, [best, place]]
            index[[place, best]] = index[[best, place]]
        dets[place] = table[[0, 1, 2, 3, 5], place]
        rest = table[:, place + 1 :]
        iou = _iou(table[:, place, None], rest, offset)
        if method == 2:
            weight = (-(iou * iou) / sigma).exp()
        else:
            lowered = torch.zeros_like(iou) if method == 0 else 1 - iou
            weight = torch.where(iou >= iou_threshold, lowered, torch.ones_like(iou))
        rest[5] *= weight
        chosen = _filled_from_the_end(~(rest[5] < min_score))
        if chosen is not None:
            chosen = torch.cat([torch.arange(place + 1), chosen + place + 1])
            table, index = table[:, chosen], index[chosen]
    return index


def _filled_from_the_end(kept: Tensor) -> Optional[Tensor]:
    """Indices of the kept entries when the last ones fill each gap. None if no gap."""
    num = int(kept.sum())
    if num == len(kept):
        return None
    chosen = torch.arange(num)
    gaps = (~kept[:num]).nonzero()[:, 0]
    chosen[gaps] = kept.nonzero()[:, 0].flip(0)[: len(gaps)]
    return chosen


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group each kept box with the boxes that it suppresses.

    Args:
        dets: (N, 5), xyxy in pixels and score, on the CPU, as mmcv passes them.
        iou_threshold: Smallest IoU of a suppressed box.

    Returns:
        One list per kept box: its index, then those of its group by score.
    """
    order = dets[:, 4].contiguous().sort(0, descending=True)[1]
    sides = _with_areas(dets[order, :4].float(), 0)
    groups = []
    while order.numel():
        over = _iou(sides[:, :1], sides[:, 1:], 0) >= iou_threshold
        groups.append([int(order[0]), *order[1:][over].tolist()])
        order, sides = order[1:][~over], sides[:, 1:][:, ~over]
    return groups
