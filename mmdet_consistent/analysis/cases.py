"""The paper's Figure 2, found rather than chosen: the worst real cases.

An object whose best box loses to a worse one that scores higher, and is
suppressed by it at NMS. Shown are both anchors, where regression took them, and
what the other detectors make of the same object.
"""

from typing import NamedTuple, Optional

import cv2
import numpy as np
from numpy.typing import NDArray

from .charts import data_url, escape
from .collect import CORNERS, Table
from .ground_truth import GroundTruth
from .summary import Summary

LONGEST = 360  # pixels of an embedded picture's longer side


class Case(NamedTuple):
    """One object that a model loses IoU on.

    Attributes:
        model: Index of the model.
        image_id: Its image.
        gt: Index among the image's countable objects.
        loss: IoU of the best box less that of the winner.
    """

    model: int
    image_id: int
    gt: int
    loss: float


def worst_cases(objects: Table, model: int, count: int) -> list[Case]:
    """The objects with the greatest loss, no two of one image.

    Args:
        objects: A model's ``objects``.
        model: Its index.
        count: How many at most.
    """
    if not objects:
        return []
    cases, images = [], set()
    for row in np.argsort(-np.nan_to_num(objects['loss'], nan=-1), kind='stable'):
        loss, image_id = float(objects['loss'][row]), objects['image_id'][row].item()
        if len(cases) == count or not loss > 0:
            break
        if image_id not in images:
            images.add(image_id)
            cases.append(Case(model, image_id, int(objects['gt'][row]), loss))
    return cases


class Panel(NamedTuple):
    """One picture of a case.

    Attributes:
        model: Index of the model.
        title: Heading.
        row: The model's row of ``objects``.
        boxes: What is drawn besides the object: ``win`` and ``best`` to the
            columns' prefix; empty where no box competes for the object.
    """

    model: int
    title: str
    row: dict
    boxes: dict[str, str]

    def legend(self) -> list[tuple[str, str]]:
        """(``win`` or ``best``, words) of each box."""
        lines = []
        for who, prefix in self.boxes.items():
            words = dict(win='wins', best='best box')[who]
            score = f', score {self.row[f"{who}_score"]:.2f}'
            if prefix.endswith('_prior'):
                score = ''
            elif who == 'best' and not self.row['loss'] > 0:
                words, score = 'is the best box too', ''
            elif who == 'best':
                words = 'best box, suppressed'
            lines.append((who, f'{words}: IoU {self.row[f"{prefix}_iou"]:.2f}{score}'))
        return lines


def panels_of(case: Case, summaries: list[Summary]) -> list[Panel]:
    """The model's anchors, its boxes, and the other models' boxes."""
    rows = {i: _row(s.model.objects, case) for i, s in enumerate(summaries)}
    own = rows.pop(case.model)
    name = summaries[case.model].model.name
    priors = dict(win='win_prior', best='best_prior')
    panels = [Panel(case.model, f'{name}: anchors', own, priors)]
    for i, row in [(case.model, own), *rows.items()]:
        if row is not None:
            known = not np.isnan(row['loss'])
            boxes = dict(win='win', best='best') if known else {}
            panels.append(Panel(i, f'{summaries[i].model.name}: boxes', row, boxes))
    return panels


def window_of(panels: list[Panel], shape: tuple) -> tuple[int, int, int, int]:
    """The part of the image (H, W, …) that holds all boxes, and some margin; xyxy."""
    boxes = [corners(p.row, b) for p in panels for b in ('gt', *p.boxes.values())]
    low = np.min(boxes, axis=0)[:2]
    high = np.max(boxes, axis=0)[2:]
    margin = 0.12 * (high - low).max() + 4
    limits = np.array([shape[1], shape[0]])
    low = np.clip(np.floor(low - margin), 0, limits - 2).astype(int)
    high = np.clip(np.ceil(high + margin), low + 2, limits).astype(int)
    return (*low.tolist(), *high.tolist())


def case_html(
    case: Case, summaries: list[Summary], truth: GroundTruth, number: int
) -> Optional[str]:
    """One case as HTML.

    Returns:
        None if the image isn't there.
    """
    image = cv2.imread(str(truth.image_path(case.image_id)))
    if image is None:
        return None
    panels = panels_of(case, summaries)
    window = window_of(panels, image.shape)
    others = truth.of_image(case.image_id).countable().boxes
    # Embedded once: the other panels refer to the first one's.
    pictures = [_picture(image, window, f'case{number}-image')]
    pictures += [f'<use href="#case{number}-image"/>'] * (len(panels) - 1)
    drawn = [_panel(*pair, window, others) for pair in zip(panels, pictures)]
    label = escape(truth.classes[int(panels[0].row['label'])])
    file_name = escape(truth.image_path(case.image_id).name)
    name = escape(summaries[case.model].model.name)
    return (
        f'<article class="case of-m{case.model}"><h3>{label} in {file_name}: '
        f'{name} loses {case.loss:.2f} IoU</h3>'
        f'<div class="panels">{"".join(drawn)}</div></article>'
    )


def _row(objects: Table, case: Case) -> Optional[dict]:
    """A model's row of the case's object; None of a model without such rows."""
    if not objects:
        return None
    rows = np.flatnonzero(
        (objects['image_id'] == case.image_id) & (objects['gt'] == case.gt)
    )
    return {k: v[rows[0]] for k, v in objects.items()} if len(rows) else None


def corners(row: dict, prefix: str) -> list[float]:
    """A box of a row of ``objects``, xyxy."""
    return [float(row[f'{prefix}_{corner}']) for corner in CORNERS]


def _picture(image: NDArray, window: tuple, key: str) -> str:
    """The window as an SVG image, for reuse under its id."""
    x1, y1, x2, y2 = window
    part = image[y1:y2, x1:x2]
    scale = min(1.0, LONGEST / max(part.shape[:2]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode('.jpg', part, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
    return (
        f'<image id="{key}" x="{x1}" y="{y1}" width="{x2 - x1}" '
        f'height="{y2 - y1}" href="{data_url(data, "image/jpeg")}"/>'
    )


def _panel(panel: Panel, picture: str, window: tuple, gt_bboxes: NDArray) -> str:
    """One picture with the object, the winner and the best box, and a legend."""
    x1, y1, x2, y2 = window
    shapes = [_rect(box, 'other') for box in gt_bboxes]
    shapes.append(_rect(corners(panel.row, 'gt'), 'gt'))
    shapes += [_rect(corners(panel.row, b), who) for who, b in panel.boxes.items()]
    lines = panel.legend()
    items = ''.join(
        f'<li><span class="swatch {who}"></span>{text}</li>' for who, text in lines
    )
    items = items or '<li>no box competes for this object</li>'
    words = '; '.join([panel.title, *[text for _, text in lines]])
    return (
        f'<div class="panel of-m{panel.model}"><h4>{escape(panel.title)}</h4>'
        f'<svg role="img" aria-label="{escape(words)}" '
        f'preserveAspectRatio="xMinYMin" viewBox="{x1} {y1} {x2 - x1} {y2 - y1}">'
        f'{picture}{"".join(shapes)}</svg><ul>{items}</ul></div>'
    )


def _rect(box: list, kind: str) -> str:
    x1, y1, x2, y2 = (float(v) for v in box)
    return (
        f'<rect class="box {kind}" x="{x1:.1f}" y="{y1:.1f}" '
        f'width="{max(x2 - x1, 0):.1f}" height="{max(y2 - y1, 0):.1f}"/>'
    )
