"""Precision, recall and confusions at one score threshold, in plain loops.

Detections below the threshold are dropped first, and the others matched anew.
"""


def overlap(box, other, crowd=False):
    """IoU of two boxes, xyxy. With a crowd region, the share of ``box`` inside it."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    area, other_area = ((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, other))
    return shared / (area if crowd else area + other_area - shared)


def best_free(box, objects, taken, allowed):
    """Index of the free object with the highest IoU of at least 0.5, or None."""
    best, found = 0.5, None
    for index, (_, other, crowd) in enumerate(objects):
        if not crowd and index not in taken and allowed(index):
            iou = overlap(box, other)
            if iou >= best:  # of equal ones the last, as in COCO
                best, found = iou, index
    return found


def judge(detections, objects, threshold):
    """Return pairs of object and detection (each a class or None) of one image.

    Args:
        detections: (label, score, box) of each.
        objects: (label, box, is crowd) of each.
        threshold: Lowest score.
    """
    kept = sorted((d for d in detections if d[1] >= threshold), key=lambda d: -d[1])
    numbers = {}
    pairs, taken, left = [], set(), []
    for label, _, box in kept:
        numbers[label] = numbers.get(label, 0) + 1
        if numbers[label] > 100:
            continue
        index = best_free(box, objects, taken, lambda i, c=label: objects[i][0] == c)
        if index is not None:
            taken.add(index)
            pairs.append((label, label))
            continue
        on_crowd = any(
            crowd and other_label == label and overlap(box, other, True) >= 0.5
            for other_label, other, crowd in objects
        )
        if not on_crowd:
            left.append((label, box))
    for label, box in left:
        index = best_free(box, objects, taken, lambda i: True)
        if index is not None:
            taken.add(index)
        pairs.append((None if index is None else objects[index][0], label))
    for index, (label, _, crowd) in enumerate(objects):
        if not crowd and index not in taken:
            pairs.append((label, None))
    return pairs
