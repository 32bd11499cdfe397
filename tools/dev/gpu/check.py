"""Check the heads on a GPU, and measure them there against mmdet's own.

Example:
    bash tools/dev/gpu_check.sh heads           # with a GPU, about 4 minutes
    bash tools/dev/gpu_check.sh training        # with a GPU, about 8 minutes
    bash tools/dev/gpu_check.sh training --dry  # the same, tiny and on the CPU

heads: compares losses and gradients with the CPU's and with mmdet's, checks that no
step waits for the GPU, and measures half precision, speed and memory.
training: kills and resumes a mixed-precision training, and trains the study's first
table at a real size, with five seeds.

Each row is appended to gpu_heads.csv or gpu_training.csv as soon as it is known. The
table's runs are in gpu_table.csv. A failing check costs its own row and nothing else.
"""

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from tools.dev import ROOT
from tools.dev.benchmark.cases import all_cores

from . import heads, resume, table
from .rows import Check, write_rows

PARTS = ('heads', 'training')


def training_checks(dry: bool, out: Path, end: float) -> Iterator[Check]:
    """Yield the checks of part two.

    Args:
        dry: Whether to train tiny detectors on the CPU.
        out: Folder of the table's CSV file.
        end: Time on ``time.monotonic`` after which no training is started.
    """
    work_dir = ROOT / f'work_dirs/gpu{"_dry" * dry}'
    if dry:
        shutil.rmtree(work_dir, ignore_errors=True)
    plan = resume.DRY if dry else resume.REAL
    for deterministic in (True, False):
        folder = work_dir / ('deterministic' if deterministic else 'any_order')
        setting = f'deterministic={deterministic}'
        rows = partial(resume.check_resume, plan, deterministic, folder)
        yield Check('killed and resumed', setting, rows)
    rows = partial(
        table.train_table,
        table.DRY if dry else table.REAL,
        work_dir / 'table',
        out / 'gpu_table.csv',
        all_cores(),
        end,
    )
    yield Check('table', '', rows)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('part', nargs='?', choices=PARTS, default='heads')
    parser.add_argument('--dry', action='store_true', help='tiny, on the CPU')
    parser.add_argument('--out', type=Path, help='folder of the CSV files')
    parser.add_argument(
        '--minutes',
        type=float,
        default=6.5,
        help='start no training after this time; default %(default)s',
    )
    args = parser.parse_args()
    if not args.dry and not torch.cuda.is_available():
        parser.error('PyTorch finds no GPU here; --dry runs the same on the CPU')
    default = 'work_dirs/gpu_dry_results' if args.dry else 'docs/results'
    args.out = (args.out or ROOT / default).resolve()
    return args


def main() -> None:
    args = parse_args()
    end = time.monotonic() + 60 * args.minutes
    os.chdir(ROOT)
    checks = heads.checks(heads.DRY if args.dry else heads.REAL)
    if args.part == 'training':
        if args.dry:  # for the processes to come
            os.environ.update(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
        checks = training_checks(args.dry, args.out, end)
    failed = write_rows(checks, args.out / f'gpu_{args.part}.csv')
    raise SystemExit(f'{failed} checks failed' if failed else 0)


if __name__ == '__main__':
    main()
