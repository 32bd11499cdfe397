"""The best of an analysis as files for documents: cases as PNG, a Markdown page."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from ..utils.tables import markdown_table
from . import cases, report, tables
from .charts import INK
from .ground_truth import GroundTruth
from .shards import write_text
from .summary import Summary

MARKS = ('<!-- analysis:begin -->', '<!-- analysis:end -->')
COLOURS = dict(gt='#ffffff', win='#ff7f0e', best='#1e90ff')
NAMES = dict(win='orange', best='blue')
CHARTS = ('positives', 'score-mean', 'score-spread', 'place-mean', 'oracles', 'errors')


def save_case(
    case: cases.Case, summaries: list[Summary], truth: GroundTruth, path: Path
) -> bool:
    """Draw a case as one PNG: anchors, then each model's boxes.

    Returns:
        Whether the image was there.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    image = cv2.imread(str(truth.image_path(case.image_id)))
    if image is None:
        return False
    panels = cases.panels_of(case, summaries)
    window = cases.window_of(panels, image.shape)
    x1, y1, x2, y2 = window
    part = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2RGB)
    height = 2.6 * (y2 - y1) / (x2 - x1) + 0.75
    figure = Figure(figsize=(2.6 * len(panels), height), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels):
        axis.imshow(part, extent=(x1, x2, y2, y1), interpolation='bilinear')
        axis.set(xticks=[], yticks=[])
        axis.set_title(panel.title, fontsize=9, color=INK)
        for who in ('gt', *panel.boxes):
            box = cases.corners(panel.row, panel.boxes.get(who, 'gt'))
            left, top, right, bottom = box
            axis.add_patch(
                Rectangle(
                    (left, top),
                    right - left,
                    bottom - top,
                    fill=False,
                    ec=COLOURS[who],
                    lw=1.8,
                    ls='--' if who == 'gt' else '-',
                )
            )
        words = [f'{NAMES[who]}: {text}' for who, text in panel.legend()]
        axis.set_xlabel('\n'.join(words), fontsize=7, color=INK)
        axis.set(xlim=(x1, x2), ylim=(y2, y1))
    figure.savefig(path, dpi=120)
    return True


def write_docs(
    summaries: list[Summary], truth: GroundTruth, folder: Path, page: Path, command: str
) -> None:
    """Put numbers and pictures between the marks of a Markdown page.

    Args:
        summaries: The detectors' numbers.
        truth: Their ground truth.
        folder: The finished analysis, whose figures are copied.
        page: Gets the text; its pictures go to ``figures/`` beside it.
        command: How it was made.
    """
    pictures = page.parent / 'figures'
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for chart in report.all_charts(summaries):
        if chart.key in CHARTS:
            name = f'analysis-{chart.key}.png'
            shutil.copyfile(folder / 'figures' / f'{chart.key}.png', pictures / name)
            lines.append(f'<img src="figures/{name}" alt="{chart.title}" width="410">')
    shown = []
    for i, summary in enumerate(summaries):
        for case in cases.worst_cases(summary.model.objects, i, 1):
            name = f'analysis-case-{i}.png'
            if save_case(case, summaries, truth, pictures / name):
                shown.append(f'![a worst case of {summary.model.name}](figures/{name})')
    header = ['', *[s.model.name for s in summaries]]
    count = int(np.sum(summaries[0].matched.num_objects))
    text = '\n\n'.join(
        [
            f'Made by `{command}`: {len(summaries[0].model.image_ids)} images, '
            f'{count} objects. One training each: what differs little may be chance.',
            markdown_table(header, tables.overview_rows(summaries)),
            '\n'.join(lines),
            'The object on which each loses most (white: object, orange: wins, blue: '
            'best box, suppressed):',
            '\n\n'.join(shown),
        ]
    )
    begin, end = MARKS
    content = page.read_text(encoding='utf-8')
    if begin not in content or end not in content:
        raise ValueError(f'{page}: the marks {begin} and {end} are missing')
    head, rest = content.split(begin, 1)
    write_text(page, f'{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}')
