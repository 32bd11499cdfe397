"""The page docs/results/gpu.md: what was counted, and what was measured on a GPU."""

import itertools
from collections.abc import Iterator

import torch

from mmdet_consistent.utils.tables import markdown_table
from tools.dev import ROOT
from tools.dev.benchmark.cases import OURS, Case, Contender
from tools.dev.benchmark.detectors import build_slim_head
from tools.dev.gpu.budget import measure_budget
from tools.dev.gpu.rows import Row, read_rows
from tools.dev.study.numbers import summarise
from tools.dev.study.report import differences_table, read_csv, values_table

SIZES = dict(retinanet=(800, 1333), ssd=(512, 512))
BATCH = 8
RESULTS = ROOT / 'docs/results'
INTRODUCTION = f"""# On a GPU

Made by `python -m tools.dev.docs`. On a GPU, the focal loss and the matching run as
Triton kernels; the rest are PyTorch operators, of which none waits for a value. Without
Triton, or with `deterministic=True`, PyTorch operators compute the same.

## Counted, without a GPU

The loss of a whole head with its backward pass, {BATCH} images, 80 classes, two label
sets and two regressions, on tensors that have shapes but no values. Bytes are those
that each operation reads and writes; the peak is beyond the head's outputs, and
includes their gradients. A test holds these figures.
"""
# Part to what its command does.
PARTS = {
    'heads': 'This command compares the heads with the CPU and with mmdet, checks '
    'that no step waits, and measures speed and memory, in about 4 minutes:',
    'training': 'This command kills and resumes a mixed-precision training, compares '
    'it with an uninterrupted one, and trains a RetinaNet with ImageNet weights on '
    'blood cells at 640 × 480 pixels, with five seeds, in about 8 minutes:',
}
CARRIED = """For a machine without a network, the head of
[gpu_check.sh](../../tools/dev/gpu_check.sh) says which wheels to carry there.
"""
ORDER = (
    'With `deterministic=True`, a resumed training must equal an uninterrupted one bit '
    'for bit. Without it, kernels add in any order: losses may then differ three times '
    'as much as those of two uninterrupted trainings do.'
)
PAIRED = (
    'Means over the seeds, AP in per cent on the test split; differences to `baseline` '
    'are paired by seed, with 95 % t-intervals.'
)


def budget_rows() -> list[list[str]]:
    """Count the head's loss in every setting."""
    rows = []
    for name, gts, dtype in itertools.product(
        SIZES, (7, 100), (torch.float32, torch.float16)
    ):
        height, width = SIZES[name]
        case = Case(detector=name, height=height, width=width)
        head = build_slim_head(case, Contender(OURS))
        size = (height, width)
        budget = measure_budget(head, batch=BATCH, size=size, gts=gts, dtype=dtype)
        rows.append(
            [
                f'{name}, {height} × {width}',
                str(gts),
                str(dtype)[6:],
                str(budget.launches),
                f'{budget.moved / 1e9:.2f} GB',
                f'{budget.peak / 1e9:.2f} GB',
            ]
        )
    return rows


def command(part: str) -> str:
    """Return the paragraph on a part's command."""
    return f'```shell\nbash tools/dev/gpu_check.sh {part}\n```\n'


def measured(part: str) -> Iterator[str]:
    """Yield the paragraphs on what a part found on a GPU, if it has been run."""
    yield f'## Measured: {part}\n'
    path = RESULTS / f'gpu_{part}.csv'
    if not path.is_file():
        yield f'Not yet run on a GPU. {PARTS[part]}\n'
        yield command(part)
        return
    yield f'{PARTS[part]}\n'
    yield command(part)
    yield markdown_table(Row._fields, read_rows(path)) + '\n'
    if part == 'training':
        yield f'{ORDER}\n'
        yield from trained()


def trained() -> Iterator[str]:
    """Yield the study's table, as far as it was trained."""
    path = RESULTS / 'gpu_table.csv'
    if path.is_file():
        _, runs = read_csv(path)
        rows = summarise(runs, 'baseline')
        yield f'## Trained\n\n{PAIRED}\n'
        yield values_table(rows) + '\n'
        yield differences_table(rows) + '\n'


def page() -> str:
    """Render the page."""
    header = ['detector', 'objects per image', 'type', 'launches', 'moved', 'peak']
    parts = [INTRODUCTION, markdown_table(header, budget_rows()) + '\n']
    for part in PARTS:
        parts += measured(part)
    parts.append(CARRIED)
    return '\n'.join(parts)
