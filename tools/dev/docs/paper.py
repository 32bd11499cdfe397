"""Write docs/paper.md: every row of the paper's tables, its config and command.

Example:
    python -m tools.dev.docs.paper            # write it
    python -m tools.dev.docs.paper --check    # fail if it is out of date
"""

import json
from pathlib import Path

from .generated import parse_args, write_or_check

ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT / 'configs/paper_tables.json'
PAGE = ROOT / 'docs/paper.md'

INTRO = """\
# The paper's tables

<!-- Made by `python -m tools.dev.docs.paper` from configs/paper_tables.json. -->

Every row that the paper trained itself, the config that has its settings, the
command that trains and evaluates it, and **the paper's figures: *not run here***.
What was measured here is in [results/](results/).

The commands want COCO in `data/coco` (`annotations/`, `train2017/`, `val2017/`) and
as many GPUs as they say. With another number, add `--auto-scale-lr`. Figures of the
last epoch are printed at the end of the training: AP, AP50, AP75, APs, APm, APl are
`coco/bbox_mAP`, `coco/bbox_mAP_50`, …; AP60 to AP90 are `coco60/bbox_mAP` to
`coco90/bbox_mAP`. A setting that stands in several tables has one config, and is
trained once.

Where the configs are not the paper's setting to the letter:

- The paper trains in Detectron (Caffe2), with its ResNet weights. Here they are
  torchvision's, as in mmdet's RetinaNet.
  mmdet's baseline is therefore not the paper's; compare a row with the baseline
  trained here, not with a figure below.
- `trainval35k` and `minival` are `train2017` and `val2017`.
- A cascade's scores and gate are not described: see the README's options.
- SSD's training is not described: schedule, augmentation and VGG-16 weights are
  those of mmdet's SSD512. Nor are the features that ResNet-50 gives to SSD:
  `configs/ssd512_r50.py` says which were chosen.
"""

CAPTIONS = {
    1: 'the design choices of Figure 4',
    2: 'the thresholds, μ_pos / μ_neg, of the refined anchors',
    3: 'the number of stages, #cls, #reg',
    4: 'backbones and image sizes',
    5: 'SSD512',
    6: 'scale jitter and 1.5 times the schedule, on `test-dev`',
}
SEPARATORS = {2: ' / ', 3: ', '}

TEST_DEV = """\
The figures are `test-dev`'s; training prints `val2017`'s. To write the file for
COCO's server (`image_info_test-dev2017.json` and `test2017/` have to be there):

```bash
{command}
```
"""


def markdown_table(header: list, rows: list) -> str:
    """A Markdown table with aligned columns."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths)) + ' |'
        for row in cells
    ]
    lines.insert(1, '| ' + ' | '.join('-' * w for w in widths) + ' |')
    return '\n'.join(lines) + '\n'


def section(number: int, rows: list) -> str:
    """One table of the paper.

    Args:
        number: The table's.
        rows: Its rows, as in the JSON file.
    """
    metrics = list(rows[0]['metrics'])
    separator = SEPARATORS.get(number, ' ')
    figures, commands = [], []
    for row in rows:
        label = row['row'].replace('_', separator)
        config = row['config']
        link = f'[{Path(config).stem}](../{config})'
        figures.append([label, *row['metrics'].values(), link])
        gpus = row['settings']['gpus']
        commands.append(f'tools/dist_train.sh {config} {gpus}   # {label}')
    parts = [
        f'## Table {number}: {CAPTIONS[number]}\n',
        "The paper's figures, *not run here*:\n",
        markdown_table(['row', *metrics, 'config'], figures),
        '```bash\n' + '\n'.join(commands) + '\n```\n',
    ]
    if rows[0]['split'] == 'test-dev':
        parts.append(TEST_DEV.format(command='\n'.join(map(test_command, rows))))
    return '\n'.join(parts)


def test_command(row: dict) -> str:
    """The command that writes a row's detections on ``test-dev``."""
    work_dir = f'work_dirs/{Path(row["config"]).stem}'
    settings = row['settings']
    return (
        f'tools/dist_test.sh {row["config"]} '
        f'{work_dir}/epoch_{settings["epochs"]}.pth {settings["gpus"]} '
        f'--cfg-options test_evaluator.outfile_prefix={work_dir}/test-dev'
    )


def render(rows: list) -> str:
    """The whole page."""
    numbers = sorted({row['table'] for row in rows})
    tables = [section(n, [r for r in rows if r['table'] == n]) for n in numbers]
    return '\n'.join([INTRO, *tables])


def main() -> None:
    args = parse_args(__doc__)
    page = render(json.loads(TABLES.read_text(encoding='utf-8')))
    refusal = (
        f'{PAGE.relative_to(ROOT)} is out of date: run python -m tools.dev.docs.paper'
    )
    write_or_check(PAGE, page, args.check, refusal)


if __name__ == '__main__':
    main()
