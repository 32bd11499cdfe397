"""The paper's Figure 2, found rather than chosen: the worst cases of a data set.

A case is an object whose best box is suppressed at NMS by a worse one with a higher
score. It is shown with the anchors of both boxes, the boxes after regression, and
the boxes of the other detectors for the same object.
"""

import base64
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .columns import CORNERS, Table
from .summary import Summary

LONGEST = 360  # pixels of an embedded picture's longer side


class Case(NamedTuple):
    """One object on which a model loses IoU.

    Attributes:
        model: Index of the model.
        image_id: Image of the object.
        gt: Index among the image's countable objects.
    """

    model: int
    image_id: int
    gt: int


def worst_cases(objects: Table, model: int, count: int) -> list[Case]:
    """Find the objects with the greatest loss, at most one per image.

    Args:
        objects: The model's table of objects.
        model: Index of the model.
        count: Greatest number of cases.
    """
    if not objects:
        return []
    loss, image_id, gt = (objects[name] for name in ('loss', 'image_id', 'gt'))
    order = np.argsort(-loss, kind='stable')
    order = order[loss[order] > 0]  # without NaN
    first = np.sort(np.unique(image_id[order], return_index=True)[1])
    rows = order[first[:count]]
    return [Case(model, image_id[row].item(), gt[row].item()) for row in rows]


class Panel(NamedTuple):
    """One picture of a case.

    Attributes:
        model: Index of the model.
        title: Heading.
        row: The model's row of the table of objects.
        prior: Show the anchors of both boxes, not the boxes themselves.
    """

    model: int
    title: str
    row: dict
    prior: bool = False

    def drawn(self) -> list[tuple[str, list[float]]]:
        """Return kind (``gt``, ``win`` or ``best``) and xyxy of each box to draw."""
        prefixes = dict(gt='gt_')
        if not np.isnan(self.row['loss']):
            end = '_prior_' if self.prior else '_'
            prefixes.update(win=f'win{end}', best=f'best{end}')
        return [
            (who, [float(self.row[f'{prefix}{corner}']) for corner in CORNERS])
            for who, prefix in prefixes.items()
        ]

    def legend(self) -> list[tuple[str, str]]:
        """Return ``win`` and ``best`` and their words. Nothing if no box competes."""
        if np.isnan(self.row['loss']):
            return []
        win = 'wins: IoU {win_iou:.2f}, score {win_score:.2f}'
        best = 'best box, suppressed: IoU {best_iou:.2f}, score {best_score:.2f}'
        if self.prior:
            win = 'wins: IoU {win_prior_iou:.2f}'
            best = 'best box: IoU {best_prior_iou:.2f}'
        elif not self.row['loss'] > 0:
            best = 'is also the best box: IoU {best_iou:.2f}'
        return [('win', win.format_map(self.row)), ('best', best.format_map(self.row))]


def panels_of(case: Case, summaries: list[Summary]) -> list[Panel]:
    """Return the pictures: the model's anchors, its boxes, other models' boxes."""
    panels = []
    for i in sorted(range(len(summaries)), key=lambda i: i != case.model):
        model = summaries[i].model
        row = _row(model.objects, case)
        if i == case.model:
            panels.append(Panel(i, f'{model.name}: anchors', row, prior=True))
        if row:
            panels.append(Panel(i, f'{model.name}: boxes', row))
    return panels


def _row(objects: Table, case: Case) -> dict:
    """Return a model's row of the case's object. Empty if it has no such rows."""
    if not objects:
        return {}
    own = (objects['image_id'] == case.image_id) & (objects['gt'] == case.gt)
    return {name: column[own][0] for name, column in objects.items()}


def window_of(panels: list[Panel], shape: tuple) -> tuple[int, int, int, int]:
    """Return the part of an image (H, W, …) around all boxes, xyxy in pixels."""
    boxes = [box for panel in panels for _, box in panel.drawn()]
    low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
    margin = 0.12 * (high - low).max() + 4
    size = np.array(shape[1::-1])
    low = np.clip(np.floor(low - margin), 0, size - 2).astype(int)
    high = np.clip(np.ceil(high + margin), low + 2, size).astype(int)
    return (*low.tolist(), *high.tolist())


def drawn_cases(summaries: list[Summary], count: int) -> list[dict]:
    """Return what the page shows of up to ``count`` cases per model.

    Each has the index of the ``model``, a ``title``, the ``window`` of the image
    (xyxy in pixels), its ``picture`` as JPEG in base64, the boxes of all objects
    (``others``) and ``panels``. Cases whose image is missing are left out.
    """
    drawn = []
    for i, summary in enumerate(summaries):
        for case in worst_cases(summary.model.objects, i, count):
            path = summary.truth.image_path(case.image_id)
            image = cv2.imread(str(path))
            if image is None:
                continue
            panels = panels_of(case, summaries)
            window = window_of(panels, image.shape)
            row = panels[0].row
            title = f'{summary.truth.classes[int(row["label"])]} in {path.name}: '
            title += f'{summary.model.name} loses {row["loss"]:.2f} IoU'
            objects = summary.truth.of_image(case.image_id).countable()
            drawn.append(
                dict(
                    model=i,
                    title=title,
                    window=window,
                    picture=_jpeg(image, window),
                    others=objects.boxes.tolist(),
                    panels=panels,
                )
            )
    return drawn


def _jpeg(image: NDArray, window: tuple[int, int, int, int]) -> str:
    """Return a part of an image as JPEG in base64, at most ``LONGEST`` pixels long."""
    x1, y1, x2, y2 = window
    part = image[y1:y2, x1:x2]
    scale = min(1.0, LONGEST / max(part.shape[:2]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode('.jpg', part, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return base64.b64encode(data.tobytes()).decode()
