"""Localisation confidence in plain loops: its loss and its scores."""

import math

import torch

from tests.reference.consistent import box_iou, decode


def confidence_loss(
    logits, deltas, boxes, positive, matched, normaliser, last_stage, stds
):
    """Binary cross-entropy with the IoU of where each positive's box ends up.

    Args:
        logits: (N, A) float64, requires grad.
        deltas: One (N, A, 4) tensor for each regression stage.
        boxes: Lists of A xyxy boxes for each image, those that the last stage
            starts from.
        positive: For each image A booleans: the last stage's positives.
        matched: For each image A ground truths, as xyxy.
        normaliser: N.
        last_stage: Its number: that many regressions are in ``boxes`` already.
        stds: Of each regression stage, four target deviations.
    """
    loss = logits.sum() * 0
    for n in range(len(boxes)):
        for a, box in enumerate(boxes[n]):
            if not positive[n][a]:
                continue
            for stage in range(last_stage, len(deltas)):
                box = decode(box, deltas[stage][n, a], stds=stds[stage])
            iou = box_iou(box, matched[n][a])
            p = torch.sigmoid(logits[n, a])
            loss = loss - iou * torch.log(p) - (1 - iou) * torch.log(1 - p)
    return loss / normaliser


def tempered(score, confidence, beta):
    """score^(1 - beta) · confidence^beta."""
    return math.pow(score, 1 - beta) * math.pow(confidence, beta)
