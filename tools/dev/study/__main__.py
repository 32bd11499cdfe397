"""Run the paper's tables in miniature: rows by seeds, paired, resumable.

Trains every row of a table with every seed on data that fit this machine, and
writes docs/results/TABLE_DATA.md, .csv and .png. Started again, it goes on where it
was; rows that tables share are trained once.

Example:
    python -m tools.dev.study table1 table3 --data bccd --seeds 0 1 2 --processes 2
    python -m tools.dev.study table1 --data occlusion --split val --seeds 0 1
    python -m tools.dev.study additions --split val --betas 0 0.2 0.4 0.6
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch

from . import betas as study_betas
from . import numbers as study
from . import occlusion
from . import report as study_report
from .runs import ROOT, Job, explain, finished, goes_on_from, job_config, run_job, train
from .tables import PRETRAINING, ROWS, TABLES, Table

DATA = ('bccd', 'occlusion')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('tables', nargs='+', choices=list(TABLES), metavar='TABLE')
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
        help='look at where baseline and consistent put their anchors, instead',
    )
    parser.add_argument(
        '--betas',
        type=study_betas.beta,
        nargs='+',
        metavar='BETA',
        help='evaluate rows with localisation confidences at each, 0 to 1, instead',
    )
    parser.add_argument(
        '--report', action='store_true', help='train nothing: write what is done so far'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/study'))
    parser.add_argument('--out', type=Path, default=Path('docs/results'))
    args = parser.parse_args()
    if args.betas:
        args.betas = sorted({0.0, *args.betas})  # 0 is what the others are compared to
    return args


def start_process() -> None:
    """One core, no chatter: what a worker process needs before its first run."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    os.chdir(ROOT)
    # The libraries print; the study has its own words.
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115


def collect_jobs(args: argparse.Namespace) -> list:
    """The jobs of all tables, each once; the first seeds first."""
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
                    TABLES[table].model,
                    args.data,
                    row,
                    seed,
                    args.split,
                    args.epochs,
                    args.work_dir,
                )
                jobs[job] = seed
    return sorted(jobs, key=jobs.get)


def run_all(jobs: list, processes: int, work: Callable = run_job) -> dict:
    """Run the jobs, saying what is done and how long the rest may take."""
    needs, pending = {}, []
    for job in jobs:
        chain = [job]
        while before := goes_on_from(chain[0]):
            needs[chain[0]] = before
            chain.insert(0, before)
        # Each just before the first row that goes on from it.
        pending += [one for one in chain if one not in pending]
    total, done, failures, results = len(pending), set(), {}, {}
    running, start = {}, time.time()
    pool = ProcessPoolExecutor(processes, get_context('spawn'), start_process)
    try:
        while pending or running:
            for job in list(pending):
                need = needs.get(job)
                if need in failures:
                    failures[job] = f'{need.name} failed'
                    pending.remove(job)
                elif len(running) < processes and (need is None or need in done):
                    task = train if job.row == PRETRAINING else work
                    running[pool.submit(task, job)] = job
                    pending.remove(job)
            ready, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                job = running.pop(future)
                try:
                    record = future.result()
                except Exception as error:
                    failures[job] = f'{type(error).__name__}: {error}'
                    print(f'FAILED {job.name}: {failures[job]}', flush=True)
                    continue
                done.add(job)
                figure = 'done'
                if job.row != PRETRAINING:
                    results[job] = record
                    metrics = record.get('metrics') or record['final']
                    figure = f'AP {metrics["AP"]:.1f}'
                left = (time.time() - start) / len(done) * (total - len(done)) / 60
                print(
                    f'[{len(done)}/{total}] {job.name}: {figure}; about {left:.0f} '
                    'min left',
                    flush=True,
                )
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            process.terminate()
        print('\nStopped. The same command goes on from here.')
        sys.exit(130)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        lines = '\n'.join(f'{job.name}: {text}' for job, text in failures.items())
        sys.exit(
            f'{len(failures)} of {total} runs failed, the others are kept:\n{lines}'
        )
    return results


def paper_figures(table: Table) -> dict:
    """Row name to the paper's figures."""
    rows = json.loads((ROOT / 'configs/paper_tables.json').read_text())
    known = {(row['table'], row['row']): row['metrics'] for row in rows}
    return {name: known[key] for name, key in table.paper.items()}


def command() -> str:
    """The command line, as a reader would type it."""
    words = [word for word in sys.argv[1:] if word != '--report']
    return shlex.join(['python', '-m', 'tools.dev.study', *words])


def schedule(job: Job, split: str) -> str:
    """A paragraph on what was trained."""
    cfg = job_config(job)
    start = 'from scratch'
    if cfg.pretraining_epochs:
        start = (
            f'from one baseline a seed, itself trained from scratch for '
            f'{cfg.pretraining_epochs} epochs'
        )
    return (
        f'`tools/dev/study/configs/{job.model}_{job.data}.py`: a small model, '
        f'trained for {cfg.train_cfg.max_epochs} epochs {start}, on one CPU core a '
        f'run; all rows '
        f'at equal settings. AP in per cent on the {split} split, means over the '
        'seeds.'
    )


def write_results(name: str, results: dict, args: argparse.Namespace) -> Path:
    """Write page, CSV and plot of one table."""
    table = TABLES[name]
    runs = {}
    for row, key in table.rows.items():
        found = {
            job.seed: result
            for job, result in results.items()
            if job.row == key and job.model == table.model
        }
        if found:
            runs[row] = found
    baseline = next(iter(table.rows))
    rows = study.summarise(runs, baseline, paper_figures(table))
    args.out.mkdir(parents=True, exist_ok=True)
    stem = f'{name}_{args.data}' + ('_val' if args.split == 'val' else '')
    title = f'{table.title} ({args.data}, {args.split} split)'
    study_report.draw(runs, rows, title, args.out / f'{stem}.png')
    (args.out / f'{stem}.csv').write_text(study_report.csv_text(runs))
    notes = [
        schedule(next(job for job in results if job.model == table.model), args.split)
    ]
    text = study_report.page(title, command(), notes, rows, baseline, f'{stem}.png')
    path = args.out / f'{stem}.md'
    path.write_text(text)
    return path


def write_boxes(name: str, results: dict, args: argparse.Namespace) -> Path:
    """Write the page on the boxes of a table's baseline and consistent detector."""
    table = TABLES[name]
    records = {
        row: {
            job.seed: record
            for job, record in results.items()
            if job.row == row and job.model == table.model
        }
        for row in ('baseline', 'consistent')
    }
    facts = {
        f'{row}, {images} images': {
            fact: float(np.mean([x[key][fact] for x in by_seed.values()]))
            for fact in next(iter(by_seed.values()))[key]
        }
        for row, by_seed in records.items()
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
    rows = study.summarise(runs, 'consistent, first boxes')
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f'boxes_{table.model}_{args.data}.md'
    job = next(job for job in results if job.model == table.model)
    text = study_report.boxes_page(
        f'Where the anchors end up ({table.model}, {args.data}, {args.split} split)',
        command(),
        schedule(job, args.split),
        facts,
        rows,
    )
    path.write_text(text)
    return path


def main() -> None:
    args = parse_args()
    os.chdir(ROOT)
    # For the processes to come. One core each: the runs share the machine.
    os.environ.update(OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    if args.data == 'occlusion':
        occlusion.build('work_dirs/data/occlusion')
    if args.boxes:
        args.rows = ['baseline', 'consistent']
    jobs = collect_jobs(args)
    if args.betas:
        jobs = [job for job in jobs if study_betas.has_beta(job)]
    if not jobs:
        sys.exit(f'--rows {" ".join(args.rows or [])}: no such row in {args.tables}')
    work, known = run_job, finished
    if args.betas:
        work = partial(study_betas.measure, betas=args.betas)
        known = partial(study_betas.finished, betas=args.betas)
    if args.boxes:
        results = run_all(jobs, args.processes, explain)
    elif args.report:
        results = {job: record for job in jobs if (record := known(job))}
        print(f'{len(results)} of {len(jobs)} runs are done')
        if not results:
            sys.exit('nothing to report yet')
    else:
        results = run_all(jobs, args.processes, work)
    if args.betas:
        note = schedule(next(iter(results)), args.split)
        path = study_betas.write_page(results, args, command(), note)
        print(f'\n{path}\n\n{path.read_text()}')
        return
    for name in args.tables:
        path = (write_boxes if args.boxes else write_results)(name, results, args)
        print(f'\n{path}\n\n{path.read_text()}')


if __name__ == '__main__':
    main()
