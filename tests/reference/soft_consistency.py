"""Labels that count by what the boxes have become, in plain loops and float64."""

import torch

from tests.reference.consistent import (
    assign,
    box_iou,
    decode,
    focal,
    mine,
    softmax_loss,
)


def quality_focal(logits, label, quality, beta=2.0):
    """Quality focal loss of one anchor's row; label == len(row) is background."""
    total = 0
    for c in range(len(logits)):
        p = torch.sigmoid(logits[c])
        y = quality if c == label else 0
        cross_entropy = -(y * torch.log(p) + (1 - y) * torch.log(1 - p))
        total = total + (y - p).abs() ** beta * cross_entropy
    return total


def label_losses(logits, deltas, anchors, gts, labels, thresholds, options):
    """L_cls(c, labels of Aᵏ) for every label stage k.

    Args:
        logits: (N, A, C) float64, requires grad.
        deltas: One (N, A, 4) float64 tensor for each regression stage.
        anchors: A xyxy boxes.
        gts, labels: Lists for each image.
        thresholds: (positive, negative) of each label stage.
        options: ``ramps``, (low, high, floor) of each label stage but the first;
            ``quality``, 'final' or 'next': the loss is the quality focal loss;
            ``ssd``, (stds, ratio): it is SSD's.

    Returns:
        A scalar for each stage.
    """
    ssd = options.get('ssd')
    stds = ssd[0] if ssd else (1, 1, 1, 1)
    background = logits.shape[-1] - (ssd is not None)
    boxes = [[anchors for _ in gts]]
    for delta in deltas:
        boxes.append(
            [
                [decode(box, delta[n, a], stds=stds) for a, box in enumerate(image)]
                for n, image in enumerate(boxes[-1])
            ]
        )
    losses = []
    for stage, (pos_thr, neg_thr) in enumerate(thresholds):
        loss, normaliser = logits.sum() * 0, 0
        for n in range(len(gts)):
            assigned = assign(boxes[stage][n], gts[n], [], pos_thr, neg_thr)
            counted, terms = 0, []
            for a, index in enumerate(assigned):
                label, weight, quality = background, 1, 0
                if index > 0:
                    gt = gts[n][index - 1]
                    label = labels[n][index - 1]
                    if stage > 0 and 'ramps' in options:
                        low, high, floor = options['ramps'][stage - 1]
                        iou = box_iou(boxes[stage][n][a], gt)
                        weight = max(floor, min(1, (iou - low) / (high - low)))
                    last = len(deltas)
                    if options.get('quality') == 'next':
                        last = min(stage + 1, last)
                    quality = box_iou(boxes[last][n][a], gt)
                    counted += weight
                elif index < 0:
                    weight = 0
                if ssd:
                    term = softmax_loss(logits[n, a], label)
                elif 'quality' in options:
                    term = quality_focal(logits[n, a], label, quality)
                else:
                    term = focal(logits[n, a], label)
                terms.append(weight * term)
            if ssd:
                positive = [index > 0 for index in assigned]
                negative = [index == 0 for index in assigned]
                loss = loss + mine(terms, positive, negative, ssd[1])
            else:
                loss = loss + sum(terms)
            normaliser += max(counted, 1)
        losses.append(loss / normaliser)
    return losses
