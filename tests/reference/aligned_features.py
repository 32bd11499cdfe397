"""Aligned features in plain loops and float64: one value at a time."""

import math

from tests.reference.consistent import decode


def bilinear(image, y, x):
    """A channel's value (C,) at a place between the cells; 0 outside."""
    total = image.new_zeros(image.shape[0])
    top, left = math.floor(y), math.floor(x)
    for row in (top, top + 1):
        for column in (left, left + 1):
            inside = 0 <= row < image.shape[1] and 0 <= column < image.shape[2]
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            if inside and weight != 0:
                total = total + weight * image[:, row, column]
    return total


def aligned_outputs(x, first, later, anchors, stride, span, stds, dilation=1):
    """What the box output gives, with later stages at the refined boxes.

    Args:
        x: Features (N, C, H, W), float64.
        first: Deltas of the first stage, (N, A·4, H, W).
        later: Weight (A·D, C, kh, kw) and bias (A·D,) of each later output.
        anchors: A boxes of one cell, xyxy in pixels.
        stride: Pixels a cell, (x, y).
        span: ``'kernel'`` or ``'box'``.
        stds: Of the deltas of each stage.
        dilation: Of the kernel.

    Returns:
        For each later output (N, A, D, H, W).
    """
    number, _, height, width = x.shape
    count = len(anchors)
    outputs = [
        x.new_zeros(number, count, len(weight) // count, height, width)
        for weight, _ in later
    ]
    for n in range(number):
        for a in range(count):
            for row in range(height):
                for column in range(width):
                    box = list(anchors[a])
                    deltas = first[n, 4 * a : 4 * a + 4, row, column]
                    for k, (weight, bias) in enumerate(later):
                        moved = decode(box, deltas, stds=stds[k])
                        if all(map(math.isfinite, moved)):
                            box = moved
                        values = len(weight) // count
                        rows = slice(a * values, (a + 1) * values)
                        deltas = bias[rows] + one_place(
                            x[n],
                            weight[rows],
                            (row, column),
                            box,
                            anchors[a],
                            stride,
                            span,
                            dilation,
                        )
                        outputs[k][n, a, :, row, column] = deltas
    return outputs


def one_place(image, weight, place, box, anchor, stride, span, dilation):
    """The kernel's sum at a place: (D,)."""
    total = image.new_zeros(len(weight))
    kernel = weight.shape[2:]
    # In y, x.
    size = [box[3] - box[1], box[2] - box[0]]
    anchor_size = [anchor[3] - anchor[1], anchor[2] - anchor[0]]
    shift = [
        ((box[i] + box[i + 2]) / 2 - (anchor[i] + anchor[i + 2]) / 2) / stride[i]
        for i in (1, 0)
    ]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            where = []
            for axis, index in ((0, i), (1, j)):
                radius = kernel[axis] // 2
                if span == 'kernel':
                    step = (index - radius) * dilation * size[axis] / anchor_size[axis]
                elif radius == 0:
                    step = 0
                else:
                    half = size[axis] / 2 / stride[1 - axis]
                    step = (index - radius) / radius * half
                where.append(place[axis] + shift[axis] + step)
            total = total + weight[:, :, i, j] @ bilinear(image, *where)
    return total
