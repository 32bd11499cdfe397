"""Markdown tables, and pictures of several models' detections side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table, padded so that it is readable in a terminal too."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [' | '.join(c.ljust(w) for c, w in zip(line, widths)) for line in lines]
    text.insert(1, ' | '.join('-' * w for w in widths))
    return '\n'.join(f'| {line} |' for line in text)


def draw_side_by_side(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Sequence[tuple]]],
    classes: Sequence[str],
    path: Path,
) -> None:
    """Draw boxes on images: one row per image, one column per source of boxes.

    Args:
        images: RGB images, (H, W, 3) uint8.
        columns: Title to the boxes of each image, as (xyxy in pixels, label, score)
            triples; the score of ground truth is None.
        classes: Class names by label.
        path: PNG or JPEG file to write.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch, Rectangle

    # Okabe and Ito's colours, which any colour vision distinguishes.
    palette = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00']
    figure, axes = plt.subplots(
        len(images),
        len(columns),
        figsize=(4.2 * len(columns), 3.2 * len(images) + 0.7),
        squeeze=False,
        layout='constrained',
    )
    for row, image in enumerate(images):
        for column, (title, boxes) in enumerate(columns.items()):
            axis = axes[row][column]
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(title)
            for (x1, y1, x2, y2), label, score in boxes[row]:
                colour = palette[label % len(palette)]
                axis.add_patch(
                    Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.6)
                )
                if score is not None:
                    label_box = dict(fc=colour, ec='none', pad=0.6)
                    style = dict(fontsize=6, color='white', va='top', bbox=label_box)
                    axis.text(x1 + 1, y1 + 1, f'{score:.2f}', **style)
    handles = [
        Patch(fc='none', ec=palette[i % len(palette)], label=name)
        for i, name in enumerate(classes)
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(classes))
    figure.savefig(path, dpi=80)
    plt.close(figure)
