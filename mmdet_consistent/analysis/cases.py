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


def case_html(
    case: Case, summaries: list[Summary], truth: GroundTruth, number: int
) -> Optional[str]:
    """One case as HTML: a panel of anchors, and one of boxes for each model.

    Returns:
        None if the image isn't there.
    """
    image = cv2.imread(str(truth.image_path(case.image_id)))
    if image is None:
        return None
    name = summaries[case.model].model.name
    own = _row(summaries[case.model].model.objects, case)
    everyone = [
        (i, _row(s.model.objects, case))
        for i, s in enumerate(summaries)
        if s.model.objects and (i == case.model or _row(s.model.objects, case))
    ]
    everyone.sort(key=lambda pair: pair[0] != case.model)
    drawn = [_corners(own, w) for w in ('win_prior', 'best_prior')]
    for _, row in everyone:
        drawn += [_corners(row, w) for w in ('gt', 'win', 'best')]
    window = _window(np.array(drawn), image.shape)
    picture = _picture(image, window, f'case{number}')
    others = truth.of_image(case.image_id).countable()
    label = escape(truth.classes[int(own['label'])])

    panels = [
        _panel(
            f'{escape(name)}: anchors',
            own,
            'prior',
            picture,
            window,
            others.boxes,
            case.model,
        )
    ]
    picture = f'<use href="#case{number}-image"/>'
    for i, row in everyone:
        title = f'{escape(summaries[i].model.name)}: boxes'
        panels.append(_panel(title, row, '', picture, window, others.boxes, i))
    file_name = escape(truth.image_path(case.image_id).name)
    return (
        f'<article class="case of-m{case.model}"><h3>{label} in {file_name}: '
        f'{escape(name)} loses {case.loss:.2f} IoU</h3>'
        f'<div class="panels">{"".join(panels)}</div></article>'
    )


def _row(objects: Table, case: Case) -> Optional[dict]:
    """A model's row of the case's object."""
    rows = np.flatnonzero(
        (objects['image_id'] == case.image_id) & (objects['gt'] == case.gt)
    )
    return {k: v[rows[0]] for k, v in objects.items()} if len(rows) else None


def _corners(row: dict, who: str) -> list[float]:
    return [float(row[f'{who}_{corner}']) for corner in CORNERS]


def _window(boxes: NDArray, shape: tuple) -> tuple[int, int, int, int]:
    """The part of the image that holds all boxes and some margin, xyxy."""
    low, high = np.nanmin(boxes[:, :2], axis=0), np.nanmax(boxes[:, 2:], axis=0)
    margin = 0.12 * (high - low).max() + 4
    limits = np.array([shape[1], shape[0]])
    low = np.clip(np.floor(low - margin), 0, limits - 2).astype(int)
    high = np.clip(np.ceil(high + margin), low + 2, limits).astype(int)
    return (*low.tolist(), *high.tolist())


def _picture(image: NDArray, window: tuple, name: str) -> str:
    """The window as an SVG image, for reuse under ``name``."""
    x1, y1, x2, y2 = window
    part = image[y1:y2, x1:x2]
    scale = min(1.0, LONGEST / max(part.shape[:2]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode('.jpg', part, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
    return (
        f'<image id="{name}-image" x="{x1}" y="{y1}" width="{x2 - x1}" '
        f'height="{y2 - y1}" href="{data_url(data, "image/jpeg")}"/>'
    )


def _panel(
    title: str,
    row: dict,
    stage: str,
    picture: str,
    window: tuple,
    gt_bboxes: NDArray,
    model: int,
) -> str:
    """One picture with the object, the winner and the best box, and a legend."""
    x1, y1, x2, y2 = window
    shapes = [_rect(box, 'other') for box in gt_bboxes]
    shapes.append(_rect(_corners(row, 'gt'), 'gt'))
    known = not np.isnan(row['loss'])
    lines = []
    for who, word in (('win', 'wins'), ('best', 'best box')):
        if not known:
            continue
        prefix = f'{who}_prior' if stage else who
        shapes.append(_rect(_corners(row, prefix), who))
        iou = f'IoU {row[f"{prefix}_iou"]:.2f}'
        score = '' if stage else f', score {row[f"{who}_score"]:.2f}'
        if who == 'best' and not row['loss'] > 0:
            word, score = 'is the best box too', ''
        elif who == 'best' and not stage:
            word = 'best box, suppressed'
        lines.append(f'<li><span class="swatch {who}"></span>{word}: {iou}{score}</li>')
    if not known:
        lines.append('<li>no box competes for this object</li>')
    words = escape(f'{title}. ' + ' '.join(line.split('</span>')[-1] for line in lines))
    words = words.replace('&lt;/li&gt;', '.').replace('&lt;li&gt;', '')
    return (
        f'<div class="panel of-m{model}"><h4>{title}</h4>'
        f'<svg role="img" aria-label="{words}" '
        f'preserveAspectRatio="xMinYMin" viewBox="{x1} {y1} {x2 - x1} {y2 - y1}">'
        f'{picture}{"".join(shapes)}</svg>'
        f'<ul>{"".join(lines)}</ul></div>'
    )


def _rect(box: list, kind: str) -> str:
    x1, y1, x2, y2 = (float(v) for v in box)
    return (
        f'<rect class="box {kind}" x="{x1:.1f}" y="{y1:.1f}" '
        f'width="{max(x2 - x1, 0):.1f}" height="{max(y2 - y1, 0):.1f}"/>'
    )
