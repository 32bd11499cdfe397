"""Measure speed and memory against mmdet's own heads.

Examples:
    python tools/benchmark.py --quick
    python tools/benchmark.py --preset head_loss
    python tools/benchmark.py --workload head_loss --ground-truths 8 800 --threads 1 2
    python tools/benchmark.py --preset targets --compare docs/results/speed.csv
    python tools/benchmark.py --write-docs
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

from mmdet_consistent.benchmark import cases, contenders, presets, report
from mmdet_consistent.benchmark.machine import about_machine
from mmdet_consistent.benchmark.measure import measure
from mmdet_consistent.benchmark.results import write_csv

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: list = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group('what to measure')
    what.add_argument(
        '--preset', nargs='+', choices=presets.PRESETS, help='default: all'
    )
    what.add_argument('--quick', action='store_true', help='less than a minute')
    custom = parser.add_argument_group(
        'your own cases, in place of a preset; several values give every combination'
    )
    base = cases.Case()
    custom.add_argument('--workload', nargs='+', choices=cases.WORKLOADS)
    custom.add_argument('--detector', nargs='+', choices=cases.DETECTORS)
    custom.add_argument(
        '--image', nargs='+', metavar='SIDE|HxW', type=cases.parse_image,
        help=f'pixels, default {base.image}',
    )  # fmt: skip
    for name in ('batch', 'classes', 'ground_truths', 'stages', 'threads'):
        custom.add_argument(
            f'--{name.replace("_", "-")}', nargs='+', type=int, metavar='N',
            help=f'default {getattr(base, name)}',
        )  # fmt: skip
    custom.add_argument('--dtype', nargs='+', choices=cases.DTYPES)
    custom.add_argument(
        '--contenders', nargs='+', metavar='NAME',
        help=f'of {", ".join(contenders.HEADS)}; behind a name +compile (head loss) '
        'or +channels_last (train_step); default: all that the detector has',
    )  # fmt: skip
    how = parser.add_argument_group('how')
    how.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    how.add_argument('--seconds', type=float, default=4.0, help='for a case, about')
    how.add_argument('--repetitions', type=int, default=15, help='at most')
    how.add_argument('--warmup', type=int, default=1)
    out = parser.add_argument_group('results')
    out.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmark'))
    return parser.parse_args(argv)


CUSTOM = (
    'workload', 'detector', 'image', 'batch', 'classes', 'ground_truths', 'stages',
    'threads', 'dtype',
)  # fmt: skip


def plan(args: argparse.Namespace) -> list:
    """The tasks that the command line asks for."""
    chosen = {name: getattr(args, name) for name in CUSTOM if getattr(args, name)}
    if not chosen and not args.contenders:
        names = ['quick'] if args.quick else args.preset or ['all']
        return presets.preset(names, args.device)
    base = cases.Case(device=args.device)
    return [
        cases.Task(
            case,
            tuple(args.contenders or contenders.contenders_of(case.detector)),
            ('custom',),
        )
        for case in cases.grid(base, **chosen)
    ]


def run(tasks: list, args: argparse.Namespace) -> list:
    """Measure all tasks, and say how far it is."""
    rows = []
    start = time.perf_counter()
    for number, task in enumerate(tasks, 1):
        rows += measure(
            task,
            warmup=args.warmup,
            repetitions=args.repetitions,
            seconds=args.seconds,
        )
        print(
            f'[{number}/{len(tasks)}, {time.perf_counter() - start:.0f} s] '
            f'{task.case.workload}: {report.describe(task.case, rows[-1].anchors)}',
            file=sys.stderr,
            flush=True,
        )
    return rows


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    tasks = plan(args)
    rows = run(tasks, args)
    paragraphs = []
    for group in report.SECTIONS:
        paragraphs += report.section(rows, group)
    paragraphs += report.settings_section(rows)
    paragraphs += report.growth_section(rows, pictures=False)
    print('\n\n'.join(paragraphs))
    args.out_dir.mkdir(parents=True, exist_ok=True)
    write_csv(args.out_dir / 'speed.csv', rows, about_machine())


if __name__ == '__main__':
    main()
