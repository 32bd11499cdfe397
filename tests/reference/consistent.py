"""The method in plain loops and float64: no cleverness, one anchor at a time."""

import math

import torch


def box_iou(a, b):
    """IoU of two xyxy boxes."""
    w = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / max(union, 1e-6)


def box_iof(a, b):
    """Intersection over the area of ``a``."""
    w = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return w * h / max((a[2] - a[0]) * (a[3] - a[1]), 1e-6)


def assign(boxes, gts, ignores, pos_thr, neg_thr, ignore_iof_thr=-1):
    """-1 ignored, 0 negative, i + 1 for ground truth i, for each box."""
    result = []
    for box in boxes:
        if not gts:
            result.append(0)
            continue
        best, index = -1.0, 0
        for i, gt in enumerate(gts):
            iou = box_iou(box, gt)
            if iou > best:
                best, index = iou, i
        in_ignore = ignore_iof_thr > 0 and any(
            box_iof(box, region) > ignore_iof_thr for region in ignores
        )
        if in_ignore:
            result.append(-1)
        elif best >= pos_thr:
            result.append(index + 1)
        elif best < neg_thr:
            result.append(0)
        else:
            result.append(-1)
    return result


MAX_LOG_SIZE = abs(math.log(16 / 1000))


def decode(box, deltas, max_ratio=MAX_LOG_SIZE, stds=(1, 1, 1, 1)):
    """Apply (dx, dy, dw, dh) to an xyxy box; scalars may be tensors."""
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = box[2] - box[0], box[3] - box[1]
    dx, dy, dw, dh = (
        float(torch.as_tensor(d).detach()) * std for d, std in zip(deltas, stds)
    )
    dw = min(max(dw, -max_ratio), max_ratio)
    dh = min(max(dh, -max_ratio), max_ratio)
    cx, cy = cx + dx * w, cy + dy * h
    w, h = w * math.exp(dw), h * math.exp(dh)
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def encode(box, gt):
    """The deltas that turn ``box`` into ``gt``."""
    w, h = box[2] - box[0], box[3] - box[1]
    return [
        ((gt[0] + gt[2]) / 2 - (box[0] + box[2]) / 2) / w,
        ((gt[1] + gt[3]) / 2 - (box[1] + box[3]) / 2) / h,
        math.log((gt[2] - gt[0]) / w),
        math.log((gt[3] - gt[1]) / h),
    ]


def focal(logits, label, gamma=2.0, alpha=0.25):
    """Focal loss of one anchor's row of logits; label == len(row) is background."""
    total = 0
    for c in range(len(logits)):
        p = torch.sigmoid(logits[c])
        if c == label:
            total = total - alpha * (1 - p) ** gamma * torch.log(p)
        else:
            total = total - (1 - alpha) * p**gamma * torch.log(1 - p)
    return total


def mine(losses, positive, negative, ratio):
    """Positives' losses and those of the hardest negatives of one image."""
    total = sum(loss for loss, is_pos in zip(losses, positive) if is_pos)
    hard = sorted(
        (loss for loss, is_neg in zip(losses, negative) if is_neg), reverse=True
    )
    return total + sum(hard[: int(ratio * sum(positive))])


def softmax_loss(logits, label):
    """Cross-entropy of one anchor's row of logits."""
    return torch.log(torch.exp(logits).sum()) - logits[label]


def smooth_l1(error, beta):
    """Smooth L1 of one number."""
    size = error.abs()
    return 0.5 * size**2 / beta if size < beta else size - 0.5 * beta


def later_stage_losses(logits, deltas, anchors, usable, gts, labels, ignores, options):
    """Losses of the stages k >= 1.

    Args:
        logits: (N, A, C) float64, requires grad.
        deltas: One (N, A, 4) float64 tensor for each regression stage.
        anchors: Lists of A xyxy boxes for each image.
        usable: For each image A booleans.
        gts, labels, ignores: Lists for each image.
        options: thresholds [(pos, neg), ...], weights, label_stages, reg_stages,
            ignore_iof_thr; first_normaliser, the first stage's number of positives by
            which Eq. 1 divides, or None for each stage's own; and ssd (ratio, beta,
            stds) where the loss is SSD's: softmax over C with background last,
            negatives mined image by image.

    Returns:
        Dictionary of scalar tensors, named as the head names them.
    """
    losses = {}
    boxes = [[list(box) for box in image] for image in anchors]
    ssd = options.get('ssd')
    num_classes = logits.shape[-1] - (ssd is not None)
    stds = ssd['stds'] if ssd else (1, 1, 1, 1)
    for stage in range(1, max(options['label_stages'], options['reg_stages'])):
        pos_thr, neg_thr = options['thresholds'][stage - 1]
        cls_loss = logits.sum() * 0
        reg_loss = logits.sum() * 0
        normaliser, num_pos = 0, 0
        for n in range(len(boxes)):
            for a in range(len(boxes[n])):
                boxes[n][a] = decode(boxes[n][a], deltas[stage - 1][n, a], stds=stds)
            assigned = assign(
                boxes[n],
                gts[n],
                ignores[n],
                pos_thr,
                neg_thr,
                options['ignore_iof_thr'],
            )
            image_pos = 0
            background = []
            for a, gt_index in enumerate(assigned):
                if not usable[n][a] or gt_index < 0:
                    continue
                label = labels[n][gt_index - 1] if gt_index > 0 else num_classes
                if ssd and gt_index == 0:
                    background.append(softmax_loss(logits[n, a], label))
                elif ssd:
                    cls_loss = cls_loss + softmax_loss(logits[n, a], label)
                else:
                    cls_loss = cls_loss + focal(logits[n, a], label)
                if gt_index > 0:
                    image_pos += 1
                    if stage < options['reg_stages']:
                        target = encode(boxes[n][a], gts[n][gt_index - 1])
                        for d in range(4):
                            error = deltas[stage][n, a, d] - target[d] / stds[d]
                            if ssd:
                                reg_loss = reg_loss + smooth_l1(error, ssd['beta'])
                            else:
                                reg_loss = reg_loss + error.abs()
            if ssd:
                background.sort(key=float, reverse=True)
                cls_loss = cls_loss + sum(background[: ssd['ratio'] * image_pos])
            num_pos += image_pos
            normaliser += max(image_pos, 1)
        losses[f'num_pos_s{stage}'] = num_pos
        if stage < options['label_stages'] and options['weights'][stage] != 0:
            weight = options['weights'][stage]
            shared = options['first_normaliser'] or normaliser
            losses[f'loss_cls_s{stage}'] = weight * cls_loss / shared
        if stage < options['reg_stages']:
            losses[f'loss_bbox_s{stage}'] = reg_loss / normaliser
    return losses
