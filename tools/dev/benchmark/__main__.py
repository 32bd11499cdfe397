"""Measure speed and memory against mmdet's own heads.

Examples:
    python -m tools.dev.benchmark --quick
    python -m tools.dev.benchmark --preset head_loss --compare docs/results/speed.csv
    python -m tools.dev.benchmark --workload head_loss --ground-truths 8 800
    python -m tools.dev.benchmark --profile
    python -m tools.dev.benchmark --history HEAD~3 HEAD
    python -m tools.dev.benchmark --write-docs
"""

import argparse
import os
import sys
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any, Optional

# PyTorch's profiler, which records the memory, prints to stderr.
os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
os.environ.setdefault('KINETO_LOG_LEVEL', '99')

import pandas as pd
import torch

from mmdet_consistent.utils import atomic
from tools.dev import ROOT

from . import cases, presets, report
from .compare import compare, regressions
from .detectors import all_costs
from .growth import plot_growth
from .history import measure_revision, write_history
from .machine import about_machine
from .measure import measure
from .profiling import profile_head_loss
from .results import COLUMNS, read_csv, write_csv

DOCS = ROOT / 'docs/results'
NUMBERS = ('batch', 'classes', 'ground_truths', 'stages', 'threads')
CUSTOM: dict[str, dict[str, Any]] = {
    **{name: dict(choices=cases.CHOICES[name]) for name in ('workload', 'detector')},
    'image': dict(metavar='SIDE|HxW', type=cases.parse_image),
    **{name: dict(metavar='N', type=int) for name in NUMBERS},
    **{name: dict(choices=cases.CHOICES[name]) for name in ('dtype', 'shapes')},
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group('what to measure').add_argument
    add('--preset', nargs='+', choices=presets.PRESETS, help='default: all')
    add('--quick', action='store_true', help='less than a minute')
    add = parser.add_argument_group(
        'custom cases in place of a preset; several values give every combination'
    ).add_argument
    for name, options in CUSTOM.items():
        text = f'default: {getattr(cases.Case(), name)}'
        add(f'--{name.replace("_", "-")}', nargs='+', help=text, **options)
    text = (
        f'some of {", ".join(cases.HEADS)}, with +compile (head_loss) or '
        '+channels_last (train_step) behind; default: all that the detector has'
    )
    add('--contenders', nargs='+', metavar='NAME', help=text)
    add = parser.add_argument_group('how').add_argument
    text = 'default: cpu, and cuda where there is one'
    add('--device', nargs='+', choices=('cpu', 'cuda'), help=text)
    add('--seconds', type=float, default=4.0, help='per case, about')
    add('--repetitions', type=int, default=15, help='at most')
    add('--warmup', type=int, default=1)
    text = 'count processor time, not wall time: for a machine that others use too'
    add('--cpu-time', action='store_true', help=text)
    add = parser.add_argument_group('instead of measuring cases').add_argument
    add('--profile', action='store_true', help='profile the head loss by operation')
    text = "measure RetinaNet's head loss with the package of these commits"
    add('--history', nargs='+', metavar='REVISION', help=text)
    text = 'show (and compare) an old run'
    add('--measured', type=Path, metavar='CSV', help=text)
    add = parser.add_argument_group('results').add_argument
    text = 'report what got slower since; exit status 1 if anything did'
    add('--compare', type=Path, metavar='OLD.csv', help=text)
    text = 'folder of speed.csv and the plots, default %(default)s'
    add('--out-dir', type=Path, default=Path('work_dirs/benchmark'), help=text)
    text = (
        'write docs/results/speed*: everything (about eight minutes), or one preset as '
        'speed_PRESET*'
    )
    add('--write-docs', action='store_true', help=text)
    return parser


def parse_args(argv: Optional[list] = None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    found = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    args.device = args.device or found
    if not set(args.device) <= set(found):
        parser.error('--device cuda: PyTorch finds no GPU here')
    given = [name for name in (*CUSTOM, 'preset', 'contenders') if getattr(args, name)]
    one_preset = given == ['preset'] and len(args.preset) == 1
    instead = args.quick or args.profile or args.measured
    if args.write_docs and (instead or (given and not one_preset)):
        parser.error('--write-docs measures everything or one --preset, nothing else')
    if given and (instead or args.history):
        option = given[0].replace('_', '-')
        parser.error(f'--{option} chooses cases, but no cases are measured')
    try:
        args.tasks = plan(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def plan(args: argparse.Namespace) -> list[cases.Task]:
    """Return the tasks that the command line asks for."""
    chosen = {name: getattr(args, name) for name in CUSTOM if getattr(args, name)}
    if not chosen and not args.contenders:
        names = ['quick'] if args.quick else args.preset or ['all']
        return presets.preset(names, args.device)
    tasks = []
    for case in cases.grid(cases.Case(), **chosen, device=args.device):
        names = args.contenders or cases.contenders_of(case.detector)
        tasks.append(cases.Task.of(case, names, 'custom'))
    return tasks


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(args: argparse.Namespace, about: dict) -> tuple[pd.DataFrame, list[str]]:
    """Measure all tasks; save the rows and report progress after each.

    Returns:
        The rows, and descriptions of what failed.
    """
    rows, failures = pd.DataFrame(columns=COLUMNS), []
    start = time.perf_counter()
    for number, task in enumerate(args.tasks, 1):
        case = f'{task.case.workload}: {report.describe(task.case)}'
        options = dict(warmup=args.warmup, repetitions=args.repetitions)
        options.update(seconds=args.seconds, cpu_time=args.cpu_time)
        try:
            found, errors = measure(task, **options)
        except Exception as error:  # other cases can be measured nevertheless
            found, errors = rows[:0], [f'{type(error).__name__}: {error}']
        rows = pd.concat([rows, found]) if len(rows) else found
        write_csv(args.out_dir / 'speed.csv', rows, about)
        seconds = time.perf_counter() - start
        log(f'[{number}/{len(args.tasks)}, {seconds:.0f} s] {case}')
        for error in errors:
            log(f'  FAILED {error}')
            failures.append(f'{case}: {error}')
    plot_growth(rows, args.out_dir)
    return rows, failures


def profiles(args: argparse.Namespace) -> dict:
    """Profile mmdet's head loss and ours."""
    case = cases.Case(device=args.device[0])
    names = (cases.REFERENCE, cases.OURS)
    return {name: profile_head_loss(case, name) for name in names}


def history(args: argparse.Namespace) -> list[str]:
    """Measure earlier revisions and add them to the CSV file."""
    revisions = []
    for revision in args.history:
        revisions.append(measure_revision(revision))
        log(str(revisions[-1]))
    path = (DOCS if args.write_docs else args.out_dir) / 'speed_history.csv'
    return report.history_section(write_history(path, revisions))


def write_page(
    rows: pd.DataFrame, costs: list, about: dict, args: argparse.Namespace
) -> None:
    """Write the page and its CSV file, of everything or of one preset."""
    preset = args.preset[0] if args.preset else None
    name = f'speed_{preset}' if preset else 'speed'
    option = f'--preset {preset} ' if preset else ''
    write_csv(DOCS / f'{name}.csv', rows, about)
    paragraphs = [
        f'# Speed: {preset}' if preset else '# Speed and memory',
        f'Generated by `python -m tools.dev.benchmark {option}--write-docs`. All '
        f'figures are in [{name}.csv]({name}.csv); how they are measured is described '
        'in [benchmark.md](../benchmark.md).',
        '\n'.join(f'- {key}: {value}' for key, value in about.items()),
    ]
    if not preset:
        plot_growth(rows, DOCS)
        paragraphs += report.targets_section(rows, costs)
    paragraphs += report.measurements(rows, pictures=not preset)
    paragraphs += report.cost_section(costs)
    if not preset:
        paragraphs += report.profile_section(profiles(args))
        saved = DOCS / 'speed_history.csv'
        if saved.is_file():
            paragraphs += report.history_section(pd.read_csv(saved))
    text = '\n\n'.join(paragraphs) + '\n'
    atomic.write(DOCS / f'{name}.md', text.encode())


def measure_and_show(args: argparse.Namespace) -> bool:
    """Measure cases (or read an old run), print and write the results.

    Returns:
        True if nothing failed and nothing is slower than before.
    """
    # Read before anything is measured: a wrong path should not cost minutes.
    old = read_csv(args.compare)[0] if args.compare else None
    about = {'date': date.today().isoformat(), **about_machine()}
    if args.cpu_time:
        about['times'] = 'processor time of all threads, not wall time'
    failures: list[str] = []
    if args.measured:
        rows, about = read_csv(args.measured)
    else:
        rows, failures = run(args, about)
    costs = all_costs() if args.write_docs else []
    paragraphs = [
        *(f'{key}: {value}' for key, value in about.items()),
        *report.measurements(rows, pictures=False),
        *report.cost_section(costs),
        *report.targets_section(rows, costs),
    ]
    slower = 0
    if old is not None:
        changes = compare(old, rows)
        slower = len(regressions(changes))
        paragraphs += report.compare_section(changes)
    print('\n\n'.join(paragraphs))
    if failures:
        log('\n'.join(['Some cases failed, so no page is written:', *failures]))
    elif args.write_docs:
        write_page(rows, costs, about, args)
    return not failures and not slower


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    args.out_dir.mkdir(parents=True, exist_ok=True)
    if args.history:
        print('\n\n'.join(history(args)))
    elif args.profile:
        print('\n\n'.join(report.profile_section(profiles(args))))
    elif not measure_and_show(args):
        sys.exit(1)


if __name__ == '__main__':
    main()
