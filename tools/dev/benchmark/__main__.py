"""Measure speed and memory against mmdet's own heads.

Examples:
    python -m tools.dev.benchmark --quick
    python -m tools.dev.benchmark --preset head_loss --compare docs/results/speed.csv
    python -m tools.dev.benchmark --workload head_loss --ground-truths 8 800
    python -m tools.dev.benchmark --profile
    python -m tools.dev.benchmark --history v0.1.0 HEAD~3 HEAD
    python -m tools.dev.benchmark --write-docs
"""

import argparse
import os
import sys
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Optional

# PyTorch's profiler, which weighs the memory, talks on stderr.
os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
os.environ.setdefault('KINETO_LOG_LEVEL', '99')

import torch

from mmdet_consistent.utils import atomic

from . import cases, contenders, presets, report
from .compare import compare, regressions
from .cost import all_costs
from .goals import OURS, verdicts
from .history import measure_revision, read_history, write_history
from .machine import about_machine
from .measure import measure
from .plots import plot_growth
from .profiling import profile_head_loss
from .results import read_csv, write_csv

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / 'docs/results'
PROFILED = (contenders.REFERENCE, OURS)
CUSTOM = (
    'workload', 'detector', 'image', 'batch', 'classes', 'ground_truths', 'stages',
    'threads', 'dtype',
)  # fmt: skip


def parse_args(argv: Optional[list] = None) -> argparse.Namespace:
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
    how.add_argument(
        '--device', nargs='+', choices=('cpu', 'cuda'),
        help='default: cpu, and cuda where there is one',
    )  # fmt: skip
    how.add_argument('--seconds', type=float, default=4.0, help='for a case, about')
    how.add_argument('--repetitions', type=int, default=15, help='at most')
    how.add_argument('--warmup', type=int, default=1)
    how.add_argument(
        '--cpu-time', action='store_true',
        help='count processor time, not wall time: for a machine that others use too',
    )  # fmt: skip
    instead = parser.add_argument_group('instead of measuring cases')
    instead.add_argument(
        '--profile', action='store_true', help='only where the head loss spends time'
    )
    instead.add_argument(
        '--history', nargs='+', metavar='REVISION',
        help="only RetinaNet's head loss, with the package as it was at these commits",
    )  # fmt: skip
    instead.add_argument(
        '--measured', type=Path, metavar='CSV', help='show (and compare) an old run'
    )
    out = parser.add_argument_group('results')
    out.add_argument(
        '--compare', type=Path, metavar='OLD.csv',
        help='say what got slower since; exit status 1 if anything did',
    )  # fmt: skip
    out.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/benchmark'),
        help='for speed.csv and the plots, default %(default)s',
    )  # fmt: skip
    out.add_argument(
        '--write-docs', action='store_true',
        help='into docs/results/speed*: everything (about eight minutes), or one '
        'preset, into speed_PRESET*',
    )  # fmt: skip
    args = parser.parse_args(argv)
    found = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    args.device = args.device or found
    if not set(args.device) <= set(found):
        parser.error('--device cuda: PyTorch finds no GPU here')
    asked = [name for name in (*CUSTOM, 'preset', 'contenders') if getattr(args, name)]
    one_preset = asked == ['preset'] and len(args.preset) == 1
    others = args.quick or args.profile or args.measured
    if args.write_docs and (others or (asked and not one_preset)):
        parser.error('--write-docs measures everything, or one --preset: give no more')
    if asked and (args.quick or args.profile or args.history or args.measured):
        parser.error(f'--{asked[0].replace("_", "-")}: there are no cases to choose')
    return args


def plan(args: argparse.Namespace) -> list:
    """The tasks that the command line asks for."""
    chosen = {name: getattr(args, name) for name in CUSTOM if getattr(args, name)}
    if not chosen and not args.contenders:
        names = ['quick'] if args.quick else args.preset or ['all']
        return presets.preset(names, args.device)
    base = cases.Case()
    return [
        cases.Task(
            case,
            tuple(args.contenders or contenders.contenders_of(case.detector)),
            ('custom',),
        )
        for case in cases.grid(base, **chosen, device=args.device)
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
            cpu_time=args.cpu_time,
        )
        print(
            f'[{number}/{len(tasks)}, {time.perf_counter() - start:.0f} s] '
            f'{task.case.workload}: {report.describe(task.case, rows[-1].anchors)}',
            file=sys.stderr,
            flush=True,
        )
    return rows


def profiles(args: argparse.Namespace) -> dict:
    """The head loss's most expensive operations, mmdet's and ours."""
    case = cases.Case(device=args.device[0])
    return {name: profile_head_loss(case, name) for name in PROFILED}


def history(args: argparse.Namespace) -> list[str]:
    """Measure earlier revisions; their figures stay in a file."""
    revisions = []
    for revision in args.history:
        revisions.append(measure_revision(revision))
        print(*revisions[-1], file=sys.stderr, flush=True)
    folder = DOCS if args.write_docs else args.out_dir
    write_history(folder / 'speed_history.csv', revisions)
    return report.history_section(revisions)


def write_page(rows: list, costs: list, about: dict, args: argparse.Namespace) -> None:
    """The generated page with its CSV file: the whole one, or that of a preset."""
    preset = args.preset[0] if args.preset else None
    name = f'speed_{preset}' if preset else 'speed'
    option = f'--preset {preset} ' if preset else ''
    write_csv(DOCS / f'{name}.csv', rows, about)
    paragraphs = [
        f'# Speed: {preset}' if preset else '# Speed and memory',
        f'Made by `python -m tools.dev.benchmark {option}--write-docs`; all figures '
        f'are in [{name}.csv]({name}.csv). How it measures: '
        '[benchmark.md](../benchmark.md).',
        '\n'.join(f'- {key}: {value}' for key, value in about.items()),
    ]
    if not preset:
        plot_growth(rows, DOCS)
        paragraphs += report.targets_section(verdicts(rows, costs))
    paragraphs += report.measurements(rows, pictures=not preset)
    paragraphs += report.cost_section(costs)
    if not preset:
        paragraphs += report.profile_section(profiles(args))
        saved = DOCS / 'speed_history.csv'
        if saved.is_file():
            paragraphs += report.history_section(read_history(saved))
    text = '\n\n'.join(paragraphs) + '\n'
    atomic.write(DOCS / f'{name}.md', text.encode())


def show(paragraphs: list[str]) -> None:
    print('\n\n'.join(paragraphs))


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    # Read before anything is measured: a wrong path should not cost minutes.
    old = read_csv(args.compare)[0] if args.compare else None
    args.out_dir.mkdir(parents=True, exist_ok=True)
    if args.history:
        show(history(args))
        return
    if args.profile:
        show(report.profile_section(profiles(args)))
        return
    about = {'date': date.today().isoformat(), **about_machine()}
    if args.cpu_time:
        about['times'] = 'processor time of all threads, not wall time'
    if args.measured:
        rows, about = read_csv(args.measured)
    else:
        rows = run(plan(args), args)
        write_csv(args.out_dir / 'speed.csv', rows, about)
        plot_growth(rows, args.out_dir)
    costs = all_costs() if args.write_docs else []
    show(
        [
            *(f'{key}: {value}' for key, value in about.items()),
            *report.measurements(rows, pictures=False),
            *report.cost_section(costs),
            *report.targets_section(verdicts(rows, costs)),
        ]
    )
    if args.write_docs:
        write_page(rows, costs, about, args)
    if old is not None:
        changes = compare(old, rows)
        print()
        show(report.compare_section(changes))
        if regressions(changes):
            sys.exit(1)


if __name__ == '__main__':
    main()
