"""Max-IoU search on a CPU, in blocks that fit into a core's cache.

Most boxes are negatives. So only the highest overlaps are kept for all boxes, and a
ground truth's index is looked up for the few positives alone. Each ground truth's
highest overlap, which low-quality matches need, is kept per strip of boxes; the strips
where it occurred are visited once more.
"""

from typing import TYPE_CHECKING, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .box_deltas import from_planes, to_planes
from .overlaps import BoxPlanes, iou

if TYPE_CHECKING:
    from .max_iou import MatchRule

# Pairs per block, ground truths per block, boxes per strip.
BLOCK, GROUP, STRIP = 2**16, 8, 256


def search_blocks(
    boxes: Tensor,
    gt_bboxes: Tensor,
    num_gts: Tensor,
    rule: 'MatchRule',
    excluded: Optional[Tensor] = None,
) -> tuple[Tensor, Tensor]:
    """Match boxes with ground truths, block by block.

    Args:
        boxes: (N, A, 4) or (1, A, 4), float32, xyxy in pixels.
        gt_bboxes: (N, G, 4), float32, xyxy in pixels.
        num_gts: Number of ground truths per image, (N,) long.
        rule: Thresholds and further rules.
        excluded: Boxes that match nothing, (N, A) bool.

    Returns:
        As :func:`match_max_iou`, for images that have ground truths.
    """
    num_boxes = boxes.shape[1]
    coordinates = to_planes(boxes)
    if excluded is not None and not excluded.any():
        excluded = None
    elif excluded is not None:
        coordinates = coordinates.expand(4, *excluded.shape)
    # The copy is contiguous, coordinate by coordinate.
    coordinates = F.pad(coordinates, (0, -num_boxes % STRIP)).contiguous()
    if excluded is not None:  # such a box has no area, and overlaps none
        coordinates[..., :num_boxes].masked_fill_(excluded, 0)
    planes = BoxPlanes.of(from_planes(coordinates))
    gts = BoxPlanes.of(gt_bboxes)
    best, tops = _highest_overlaps(planes, gts, rule.match_low_quality)
    best = best[:, :num_boxes]

    gt_inds = (best < rule.neg_iou_thr).long().sub_(1)
    rows = (best >= rule.pos_iou_thr).nonzero(as_tuple=True)
    gt_inds[rows] = _index_of_best(planes, gts, *rows) + 1
    if rule.match_low_quality:
        real = torch.arange(gt_bboxes.shape[1]) < num_gts[:, None]
        takes = real & (gts.area > 0) & (tops.amax(dim=2) >= rule.min_pos_iou)
        image, gt, place = _takers(planes, gts, tops, takes)
        usable = place < num_boxes
        if excluded is not None:
            usable &= ~excluded[image, place.clamp(max=num_boxes - 1)]
        image, gt, place = image[usable], gt[usable], place[usable]
        if not rule.gt_max_assign_all:
            pair = image * gt_bboxes.shape[1] + gt
            first = place.new_full((takes.numel(),), num_boxes)
            first.scatter_reduce_(0, pair, place, 'amin')
            is_first = place == first[pair]
            image, gt, place = image[is_first], gt[is_first], place[is_first]
        # Of ground truths that take the same box, the last one has it.
        taken, box = gt_inds.view(-1), image * num_boxes + place
        taken[box] = 0
        taken.scatter_reduce_(0, box, gt + 1, 'amax')
    if excluded is not None:
        gt_inds.masked_fill_(excluded, -1)
        best.masked_fill_(excluded, -1)
    return gt_inds, best


def _highest_overlaps(
    planes: BoxPlanes, gts: BoxPlanes, per_strip: bool
) -> tuple[Tensor, Tensor]:
    """Return the highest IoU of each box, and of each ground truth in each strip.

    Args:
        planes: Boxes, (N or 1, A); A is a multiple of :data:`STRIP`.
        gts: Ground truths, (N, G).
        per_strip: Whether to fill the second result.

    Returns:
        (N, A) and (N, G, A / STRIP).
    """
    (num_images, num_gts), num_boxes = gts.area.shape, planes.area.shape[1]
    best = gts.area.new_full((num_images, num_boxes), -1)
    tops = gts.area.new_empty((num_images, num_gts, num_boxes // STRIP))
    strips = max(1, BLOCK // (num_images * min(num_gts, GROUP) * STRIP))
    for start in range(0, tops.shape[2], strips):
        block = slice(start * STRIP, (start + strips) * STRIP)
        here, best_here = planes.at(slice(None), None, block), best[:, block]
        for first in range(0, num_gts, GROUP):
            group = slice(first, first + GROUP)
            overlaps = iou(gts.at(slice(None), group, None), here)
            torch.maximum(best_here, overlaps.amax(dim=1), out=best_here)
            if per_strip:
                top = tops[:, group, start : start + strips]
                torch.amax(overlaps.unflatten(2, (-1, STRIP)), dim=3, out=top)
    return best, tops


def _index_of_best(
    planes: BoxPlanes, gts: BoxPlanes, image: Tensor, place: Tensor
) -> Tensor:
    """Return the first ground truth that overlaps each of some boxes most: (P,)."""
    step = max(1, BLOCK // gts.area.shape[1])
    found = [
        iou(gts.at(i), planes.at(_row(planes, i), p, None)).max(dim=1).indices
        for i, p in zip(image.split(step), place.split(step))
    ]
    return torch.cat(found)


def _takers(
    planes: BoxPlanes, gts: BoxPlanes, tops: Tensor, takes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the boxes that overlap a ground truth as much as any box does.

    Args:
        planes: Boxes, (N or 1, A).
        gts: Ground truths, (N, G).
        tops: Their highest IoU in each strip, (N, G, A / STRIP).
        takes: Ground truths that may take boxes, (N, G) bool.

    Returns:
        Image, ground truth and box of each such pair, (T,) each.
    """
    top = tops.amax(dim=2)
    hits = ((tops == top[..., None]) & takes[..., None]).nonzero()
    in_strips = BoxPlanes(*(plane.unflatten(1, (-1, STRIP)) for plane in planes))
    found = []
    for some in hits.split(max(1, BLOCK // STRIP)):
        image, gt, strip = some.unbind(1)
        overlaps = iou(
            gts.at(image, gt, None), in_strips.at(_row(planes, image), strip)
        )
        hit, offset = (overlaps == top[image, gt, None]).nonzero(as_tuple=True)
        place = strip[hit] * STRIP + offset
        found.append(torch.stack([image[hit], gt[hit], place]))
    image, gt, place = torch.cat(found, dim=1)
    return image, gt, place


def _row(planes: BoxPlanes, image: Tensor) -> Tensor:
    """Return the row of each image's boxes. Images may share one."""
    return image if len(planes.area) > 1 else torch.zeros_like(image)
