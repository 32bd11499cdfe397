"""Run the paper's tables in miniature: rows by seeds, paired, resumable.

Trains every row of a table with every seed, on data that fit this machine, and writes
docs/results/TABLE_DATA.md, .csv and .png. Started again, it continues where it stopped.
Rows that several tables share are trained once.

Example:
    python -m tools.dev.study table1 table3 --data bccd --seeds 0 1 2 --processes 2
    python -m tools.dev.study table1 --data occlusion --split val --seeds 0 1
    python -m tools.dev.study additions --split val --betas 0 0.2 0.4 0.6
    python -m tools.dev.study --from-csv docs/results/table1_bccd.csv
"""

import argparse
import os
import shlex
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from tools.dev import ROOT

from . import betas, occlusion
from .numbers import summarise
from .plot import draw
from .pool import run_all
from .report import (
    Origin,
    boxes_page,
    page_from_csv,
    rows_of,
    schedule,
    write_csv,
)
from .runs import Job, finished, measure_boxes, run_job
from .tables import ROWS, TABLES

DATA = ('bccd', 'occlusion', 'aquarium', 'bccd_photos', 'person', 'people')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'tables', nargs='*', metavar='TABLE', help=f'some of {", ".join(TABLES)}'
    )
    parser.add_argument('--data', choices=DATA, default='bccd')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--core-seeds',
        type=int,
        nargs='+',
        help='seeds of baseline and consistent; default: as --seeds',
    )
    parser.add_argument(
        '--split',
        choices=['val', 'test'],
        default='test',
        help='val to choose settings by; test for the final figures, once',
    )
    parser.add_argument('--rows', nargs='+', choices=list(ROWS), help='only these')
    parser.add_argument('--epochs', type=int, help="instead of the config's")
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument(
        '--boxes',
        action='store_true',
        help='instead, measure where baseline and consistent move their anchors',
    )
    parser.add_argument(
        '--betas',
        type=betas.beta,
        nargs='+',
        metavar='BETA',
        help='instead, evaluate rows with localisation confidences at each, 0 to 1',
    )
    parser.add_argument(
        '--report', action='store_true', help='train nothing: write what is done so far'
    )
    parser.add_argument(
        '--from-csv',
        type=Path,
        nargs='+',
        metavar='CSV',
        help='train nothing: write the pages of these files, beside them',
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/study'))
    parser.add_argument('--out', type=Path, default=Path('docs/results'))
    args = parser.parse_args()
    unknown = [name for name in args.tables if name not in TABLES]
    if unknown or bool(args.tables) == bool(args.from_csv):
        parser.error(
            f'name tables ({", ".join(TABLES)}) or give --from-csv'
            + ''.join(f'; there is no table {name}' for name in unknown)
        )
    if args.betas:
        args.betas = sorted({0.0, *args.betas})  # the others are compared with 0
    return args


def collect_jobs(args: argparse.Namespace) -> list[Job]:
    """Return the jobs of all tables, each once; the first seeds first."""
    jobs = {}
    for table in args.tables:
        for row in TABLES[table].rows.values():
            if args.rows and row not in args.rows:
                continue
            seeds = args.seeds
            if row in ('baseline', 'consistent') and args.core_seeds:
                seeds = args.core_seeds
            for seed in seeds:
                job = Job(
                    model=TABLES[table].model,
                    data=args.data,
                    row=row,
                    seed=seed,
                    split=args.split,
                    epochs=args.epochs,
                    work_dir=args.work_dir,
                )
                jobs[job] = seed
    return sorted(jobs, key=jobs.get)


def command() -> str:
    """Return the command line as a reader would type it."""
    words = [word for word in sys.argv[1:] if word != '--report']
    return shlex.join(['python', '-m', 'tools.dev.study', *words])


def by_seed(results: dict, model: str, row: str) -> dict[int, dict]:
    """Return a row's records by seed."""
    return {
        job.seed: record
        for job, record in results.items()
        if (job.model, job.row) == (model, row)
    }


def write_table(name: str, results: dict, args: argparse.Namespace) -> Path:
    """Write page, CSV file and plot of one table."""
    table = TABLES[name]
    runs = {row: by_seed(results, table.model, key) for row, key in table.rows.items()}
    runs = {row: found for row, found in runs.items() if found}
    epochs = str(args.epochs or '')
    origin = Origin(command(), name, args.data, args.split, epochs)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f'{origin.stem}.md'
    draw(runs, rows_of(origin, runs), origin.title, path.with_suffix('.png'))
    write_csv(path.with_suffix('.csv'), origin, runs)
    path.write_text(page_from_csv(path.with_suffix('.csv')), encoding='utf-8')
    return path


def write_boxes(name: str, results: dict, args: argparse.Namespace) -> Path:
    """Write the page on the boxes of a table's baseline and consistent detector."""
    model = TABLES[name].model
    records = {row: by_seed(results, model, row) for row in ('baseline', 'consistent')}
    facts = {
        f'{row}, {images} images': {
            fact: float(np.mean([x[key][fact] for x in found.values()]))
            for fact in next(iter(found.values()))[key]
        }
        for row, found in records.items()
        for key, images in (('facts', args.split), ('facts_train', 'training'))
    }
    # Here the baseline of the comparison is the same model's first step.
    runs = {
        f'{row}, {boxes} boxes': {
            seed: dict(metrics=record[boxes], positives=[])
            for seed, record in records[row].items()
        }
        for row, boxes in (
            ('consistent', 'first'),
            ('consistent', 'final'),
            ('baseline', 'final'),
        )
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f'boxes_{model}_{args.data}.md'
    text = boxes_page(
        f'Where the anchors end up ({model}, {args.data}, {args.split} split)',
        command(),
        schedule(model, args.data, args.split, args.epochs),
        facts,
        summarise(runs, 'consistent, first boxes'),
    )
    path.write_text(text, encoding='utf-8')
    return path


def run(args: argparse.Namespace) -> list[Path]:
    """Train and evaluate (or report) what the command line asks for.

    Returns:
        The written pages.
    """
    if args.boxes:
        args.rows = ['baseline', 'consistent']
    work, known = run_job, finished
    jobs = collect_jobs(args)
    if args.boxes:
        work = measure_boxes
    elif args.betas:
        jobs = [job for job in jobs if betas.has_beta(job)]
        work = partial(betas.measure, betas=args.betas)
        known = partial(betas.finished, betas=args.betas)
    if not jobs:
        sys.exit(f'--rows {" ".join(args.rows or [])}: no such row in {args.tables}')
    if args.report and not args.boxes:
        results = {job: record for job in jobs if (record := known(job))}
        print(f'{len(results)} of {len(jobs)} runs are done')
        if not results:
            sys.exit('there is nothing to report yet')
    else:
        results = run_all(jobs, args.processes, work)
    if args.betas:
        return [betas.write_page(results, args, command())]
    write = write_boxes if args.boxes else write_table
    return [write(name, results, args) for name in args.tables]


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    if args.from_csv:
        for path in args.from_csv:
            path.with_suffix('.md').write_text(page_from_csv(path), encoding='utf-8')
        return
    os.chdir(ROOT)
    # For the processes to come. One core each: the runs share the machine.
    os.environ.update(OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    if args.data == 'occlusion':
        occlusion.build('work_dirs/data/occlusion')
    for path in run(args):
        print(f'\n{path}\n\n{path.read_text(encoding="utf-8")}')


if __name__ == '__main__':
    main()
