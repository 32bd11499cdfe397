"""The page docs/results/gpu.md: what was counted, and what was measured on a GPU."""

import csv
import itertools

import torch

from mmdet_consistent.utils.tables import markdown_table
from tools.dev import ROOT
from tools.dev.benchmark.cases import OURS, Case, Contender
from tools.dev.benchmark.detectors import build_slim_head
from tools.dev.gpu.budget import measure_budget

SIZES = dict(retinanet=(800, 1333), ssd=(512, 512))
BATCH = 8
CHECKS = ROOT / 'docs/results/gpu.csv'
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
NOT_RUN = """## Measured

Not yet run on a GPU. This command checks equality with the CPU and with mmdet's heads,
that no step waits, half precision, and measures speed and memory, in about 4 minutes:

```shell
bash tools/dev/gpu_check.sh
```
"""


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


def page() -> str:
    """Render the page."""
    header = ['detector', 'objects per image', 'type', 'launches', 'moved', 'peak']
    parts = [INTRODUCTION, markdown_table(header, budget_rows()) + '\n']
    if CHECKS.is_file():
        with CHECKS.open(encoding='utf-8', newline='') as file:
            header, *rows = csv.reader(file)
        parts += ['## Measured\n', 'Made by `bash tools/dev/gpu_check.sh`.\n']
        parts.append(markdown_table(header, rows))
    else:
        parts.append(NOT_RUN)
    return '\n'.join(parts)
