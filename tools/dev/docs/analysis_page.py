r"""Run an analysis and put its main numbers and pictures into docs/analysis.md.

Takes the arguments of tools/analyze.py. Rewrites the block of the page between its
marks, and the PNG files of docs/figures/ that the block shows.

Example:
    python -m tools.dev.docs.analysis_page base.py base.pth ours.py ours.pth \
        --names RetinaNet ConRetinaNet --out work_dirs/analysis
"""

import itertools
import shlex
import shutil
import sys
from pathlib import Path

import cv2

from mmdet_consistent.analysis import cases, figures, tables
from mmdet_consistent.analysis.charts import INK
from mmdet_consistent.analysis.summary import Summary
from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.tables import markdown_table
from tools import analyze

from .blocks import with_block

PAGE = Path(__file__).resolve().parents[3] / 'docs/analysis.md'
COLOURS = dict(gt='#ffffff', win='#ff7f0e', best='#1e90ff')
NAMES = dict(win='orange', best='blue')
CHARTS = ('errors', 'oracles', 'score-mean', 'score-spread', 'place-mean', 'positives')


def draw_case(case: cases.Case, summaries: list[Summary], path: Path) -> bool:
    """Draw a case as one PNG: its anchors, then the boxes of each model.

    Returns:
        Whether the image of the case exists; nothing is drawn if it does not.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    truth = summaries[case.model].truth
    image = cv2.imread(str(truth.image_path(case.image_id)))
    if image is None:
        return False
    panels = cases.panels_of(case, summaries)
    x1, y1, x2, y2 = cases.window_of(panels, image.shape)
    part = cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2RGB)
    height = 2.6 * (y2 - y1) / (x2 - x1) + 0.75
    figure = Figure(figsize=(2.6 * len(panels), height), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels):
        axis.imshow(part, extent=(x1, x2, y2, y1), interpolation='bilinear')
        axis.set(xticks=[], yticks=[])
        axis.set_title(panel.title, fontsize=9, color=INK)
        for who, (left, top, right, bottom) in panel.drawn():
            options = dict(ec=COLOURS[who], ls='--' if who == 'gt' else '-')
            size = (right - left, bottom - top)
            axis.add_patch(Rectangle((left, top), *size, fill=False, lw=1.8, **options))
        words = [f'{NAMES[who]}: {text}' for who, text in panel.legend()]
        axis.set_xlabel('\n'.join(words), fontsize=7, color=INK)
        axis.set(xlim=(x1, x2), ylim=(y2, y1))
    figure.savefig(path, dpi=120)
    return True


def write_block(
    summaries: list[Summary], folder: Path, page: Path, command: str
) -> None:
    """Rewrite the block of a Markdown page.

    Args:
        summaries: Results of the detectors.
        folder: The finished analysis, from which figures are copied.
        page: The page; its pictures go to ``figures/`` beside it.
        command: The command that produced the analysis.
    """
    pictures = page.parent / 'figures'
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for chart in itertools.chain(*figures.all_charts(summaries).values()):
        if chart.key in CHARTS:
            name = f'analysis-{chart.key}.png'
            shutil.copyfile(folder / 'figures' / f'{chart.key}.png', pictures / name)
            lines.append(f'<img src="figures/{name}" alt="{chart.title}" width="410">')
    shown = []
    for i, summary in enumerate(summaries):
        for case in cases.worst_cases(summary.model.objects, i, 1):
            name = f'analysis-case-{i}.png'
            if draw_case(case, summaries, pictures / name):
                shown.append(f'![a worst case of {summary.model.name}](figures/{name})')
    names = [summary.model.name for summary in summaries]
    overview = tables.overview(summaries)
    rows = [[f'{row.name} {row.arrow}'.strip(), *row.texts] for row in overview]
    blocks = [
        f'Made by `{command}`: {len(summaries[0].model.image_ids)} images, '
        f'{summaries[0].matched.num_objects.sum()} objects. One training run per '
        'detector: small differences may be chance.',
        markdown_table(['', *names], rows),
        '\n'.join(lines),
        'The object on which each detector loses most (white: the object; orange: the '
        'winning box; blue: the best box, which is suppressed):',
        *shown,
    ]
    text = page.read_text(encoding='utf-8')
    text = with_block(text, 'analysis', '\n\n'.join(blocks))
    atomic.write(page, text.encode())


def main() -> None:
    args = analyze.parse_args(__doc__)
    command = shlex.join(
        ['python', '-m', 'tools.dev.docs.analysis_page', *sys.argv[1:]]
    )
    folder = args.out
    write_block(analyze.run(args, command).summaries, folder, PAGE, command)


if __name__ == '__main__':
    main()
