"""Run the paper's tables in miniature: rows by seeds, paired, resumable.

Trains every row of a table with every seed on data that fit this machine, and
writes docs/results/TABLE_DATA.md, .csv and .png. Started again, it goes on where it
was; rows that tables share are trained once.

Example:
    python tools/study.py table1 table3 --data bccd --seeds 0 1 2 --processes 2
    python tools/study.py table1 --data occlusion --split val --seeds 0 1
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import statistics
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Optional

import cv2
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint, set_random_seed

import mmdet_consistent  # noqa: F401  (registers the heads)
from mmdet_consistent.analysis import study, study_report
from mmdet_consistent.datasets import occlusion
from mmdet_consistent.hooks import ProgressHook

ROOT = Path(__file__).resolve().parents[1]
HEADS = {'retinanet': 'ConsistentRetinaHead', 'ssd': 'ConsistentSSDHead'}
DATA = ('bccd', 'occlusion')


def thresholds(*pairs: tuple) -> list:
    """Assigners of the later stages, from (positive, negative) IoUs."""
    kind = 'SecondPassAssigner'
    return [dict(type=kind, pos_iou_thr=p, neg_iou_thr=n) for p, n in pairs]


# Settings of the head; None: mmdet's own head, the baseline.
ROWS = {
    'baseline': None,
    'consistent': {},
    'cascade': dict(variant='cascade'),
    'gated_cascade': dict(variant='gated_cascade'),
    '0.5_0.5': dict(stage_assigners=thresholds((0.5, 0.5))),
    '0.7_0.6': dict(stage_assigners=thresholds((0.7, 0.6))),
    '2_1': dict(label_stages=2, reg_stages=1),
    '3_2': dict(label_stages=3, reg_stages=2),
    '1_2': dict(label_stages=1, reg_stages=2),
    'alpha_0.5': dict(stage_loss_weights=(1.0, 0.5)),
    'refined_labels_only': dict(stage_loss_weights=(0.0, 1.0)),
    'first_normalizer': dict(cls_normalizer='first'),
    'sharper_stds': dict(
        stage_bbox_coders=dict(
            type='DeltaXYWHBBoxCoder', target_stds=[0.5, 0.5, 0.5, 0.5]
        )
    ),
}


PRETRAINING = 'pretraining'  # the baseline, before the rows part


class Table(NamedTuple):
    """A table of the paper, or one of our own.

    Attributes:
        title: Title of the page.
        model: ``retinanet`` or ``ssd``: the config is MODEL_DATA.py.
        rows: Name in the table to name in :data:`ROWS`; the first is the baseline.
        paper: Name in the table to (table, row) of the paper's figures.
    """

    title: str
    model: str
    rows: dict
    paper: dict


TABLES = {
    'table1': Table(
        'Table 1 in miniature: the detectors of Figure 4',
        'retinanet',
        {n: n for n in ('baseline', 'cascade', 'gated_cascade', 'consistent')},
        {n: (1, n) for n in ('baseline', 'cascade', 'gated_cascade', 'consistent')},
    ),
    'table2': Table(
        'Table 2 in miniature: thresholds of the second labels',
        'retinanet',
        {
            'baseline': 'baseline',
            '0.5_0.5': '0.5_0.5',
            '0.6_0.5': 'consistent',
            '0.7_0.6': '0.7_0.6',
        },
        {
            'baseline': (3, '1_1'),
            '0.5_0.5': (2, '0.5_0.5'),
            '0.6_0.5': (2, '0.6_0.5'),
            '0.7_0.6': (2, '0.7_0.6'),
        },
    ),
    'table3': Table(
        'Table 3 in miniature: numbers of label sets and of regressions',
        'retinanet',
        {'1_1': 'baseline', '2_1': '2_1', '2_2': 'consistent', '3_2': '3_2'},
        {n: (3, n) for n in ('1_1', '2_1', '2_2', '3_2')},
    ),
    'table5': Table(
        'Table 5 in miniature: SSD',
        'ssd',
        {'baseline': 'baseline', 'consistent': 'consistent'},
        {'baseline': (5, 'r50_baseline'), 'consistent': (5, 'r50_consistent')},
    ),
    'study_notes': Table(
        'What drives the difference',
        'retinanet',
        {
            n: n
            for n in (
                *('baseline', 'consistent', '2_1', '1_2', '0.5_0.5', '0.7_0.6'),
                *('alpha_0.5', 'refined_labels_only', 'first_normalizer'),
                'sharper_stds',
            )
        },
        {},
    ),
}


class Job(NamedTuple):
    """One training: a row of :data:`ROWS`, a seed, and where it is kept."""

    model: str
    data: str
    row: str
    seed: int
    split: str
    epochs: int
    work_dir: Path

    @property
    def name(self) -> str:
        """What people read."""
        return f'{self.data} {self.model} {self.row} seed {self.seed}'

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.work_dir / f'{self.model}_{self.data}' / self.row / str(self.seed)


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
        '--report', action='store_true', help='train nothing: write what is done so far'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/study'))
    parser.add_argument('--out', type=Path, default=Path('docs/results'))
    return parser.parse_args()


# ------------------------------------------------------------------ one training


class EpochSeedHook(Hook):
    """Starts every epoch's chance from the seed and the epoch's number.

    So flips are the same for every row, whatever chance its model used up while
    it was built, and a resumed run is the one that was interrupted.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed every source of chance."""
        set_random_seed(1000 * self.seed + runner.epoch)


def job_config(job: Job) -> Config:
    """The row's config."""
    cfg = Config.fromfile(ROOT / f'configs/study/{job.model}_{job.data}.py')
    epochs = job.epochs or cfg.max_epochs
    if job.row == PRETRAINING:
        epochs = cfg.pretraining_epochs
    elif ROWS[job.row] is not None:
        cfg.model.bbox_head.update(type=HEADS[job.model], **ROWS[job.row])
    cfg.merge_from_dict(
        {
            'max_epochs': epochs,
            'train_cfg.max_epochs': epochs,
            'param_scheduler.1.end': epochs,
            'param_scheduler.1.T_max': epochs,
        }
    )
    return cfg


def initial_weights(job: Job) -> Path:
    """Weights from which every row of this seed starts.

    The baseline after its pretraining; without pretraining, or for the pretraining
    itself: the baseline as it is initialised.
    """
    if job_config(job).pretraining_epochs and job.row != PRETRAINING:
        return weights_of(pretraining(job))
    cfg = job_config(job._replace(row='baseline'))
    digest = hashlib.sha1(repr(cfg.model).encode()).hexdigest()[:10]
    path = job.folder.parents[1] / 'initial' / f'{job.seed}_{digest}.pth'
    if not path.is_file():
        set_random_seed(job.seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        save_weights(model.state_dict(), path)
    return path


def save_weights(weights: dict, path: Path) -> None:
    """Write beside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f'.{os.getpid()}')
    torch.save(weights, partial)
    os.replace(partial, path)


def pretraining(job: Job) -> Job:
    """The training that all rows of this model, data and seed go on from."""
    return job._replace(row=PRETRAINING, split='', epochs=None)


def weights_of(job: Job) -> Path:
    """Weights of a finished training."""
    return job.folder / 'weights.pth'


def write_json(path: Path, content: dict) -> None:
    """Write beside, then rename."""
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(content, indent=1))
    os.replace(partial, path)


def recipe(job: Job) -> str:
    """A fingerprint of all settings of a run, its pretraining's included."""
    text = job_config(job).pretty_text
    if job.row != PRETRAINING and job_config(job).pretraining_epochs:
        text += recipe(pretraining(job))
    return hashlib.sha1(text.encode()).hexdigest()


def same_recipe(job: Job) -> bool:
    """Whether what is kept of the run was made with today's settings."""
    path = job.folder / 'recipe.json'
    return path.is_file() and json.loads(path.read_text()) == dict(recipe=recipe(job))


def finished(job: Job) -> Optional[dict]:
    """The record of a run that is done."""
    path = job.folder / f'{job.split}.json'
    return json.loads(path.read_text()) if path.is_file() and same_recipe(job) else None


def train(job: Job) -> dict:
    """Train, or go on, unless it is done; return positives and time."""
    record = job.folder / 'trained.json'
    if record.is_file() and same_recipe(job):
        return json.loads(record.read_text())
    if not same_recipe(job):
        shutil.rmtree(job.folder, ignore_errors=True)  # of no use to this setting
    cfg = quiet_config(job)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / 'recipe.json', dict(recipe=recipe(job)))
    cfg.test_dataloader = cfg.val_dataloader = None
    last = find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None
    if last and Path(last).name == f'epoch_{cfg.train_cfg.max_epochs}.pth':
        # It ended before its positives were noted: cheaper again than guessed.
        shutil.rmtree(cfg.work_dir)
        last = None
    cfg.resume = last is not None
    cfg.load_from = last or str(initial_weights(job))
    runner = Runner.from_cfg(cfg)
    with open(job.folder / 'progress.txt', 'a', buffering=1) as log:
        progress = ProgressHook(job.name, stream=log)
        runner.register_hook(EpochSeedHook(job.seed))
        runner.register_hook(progress, priority='LOW')
        runner.train()
    save_weights(runner.model.state_dict(), weights_of(job))
    steps = len(runner.train_dataloader)
    batch = cfg.train_dataloader.batch_size
    trained = dict(
        positives=[
            statistics.mean(values[-steps:]) / batch
            for values in progress.num_pos.values()
        ],
        step_seconds=statistics.median(progress.step_seconds),
    )
    write_json(record, trained)
    shutil.rmtree(cfg.work_dir)  # the optimiser's state is of no more use
    return trained


def run_job(job: Job) -> dict:
    """Train and evaluate, as far as it isn't done; return the run's record."""
    known = finished(job)
    if known:
        return known
    trained = train(job)
    cfg = quiet_config(job)
    annotations = Path(cfg.data_root) / f'annotations/{job.split}.json'
    cfg.load_from = str(weights_of(job))
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = None
    cfg.param_scheduler = cfg.val_dataloader = None
    cfg.test_dataloader = job_config(job)[f'{job.split}_dataloader']
    cfg.test_cfg = dict()
    cfg.test_evaluator = dict(
        type='CocoMetric',
        ann_file=str(annotations),
        format_only=True,
        outfile_prefix=str(job.folder / job.split),
    )
    Runner.from_cfg(cfg).test()
    detections = job.folder / f'{job.split}.bbox.json'
    metrics = study.coco_aps(annotations, detections)
    result = dict(**job._replace(work_dir=None)._asdict(), **trained, metrics=metrics)
    write_json(job.folder / f'{job.split}.json', result)
    return result


def quiet_config(job: Job) -> Config:
    """The row's config with seed, folder and as little chatter as there can be."""
    cfg = job_config(job)
    cfg.work_dir = str(job.folder / 'run')
    cfg.log_level = 'ERROR'
    cfg.randomness = dict(seed=job.seed)
    cfg.experiment_name = job.name.replace(' ', '_') + str(time.time())
    cfg.default_hooks = dict(
        logger=None,
        checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    )
    return cfg


# --------------------------------------------------------------------- the study


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


def run_all(jobs: list, processes: int) -> dict:
    """Run the jobs, saying what is done and how long the rest may take."""
    needs = {
        job: pretraining(job) for job in jobs if job_config(job).pretraining_epochs
    }
    # Each pretraining just before the first row that goes on from it.
    pending = list(dict.fromkeys(x for job in jobs for x in (needs.get(job), job) if x))
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
                    work = train if job.row == PRETRAINING else run_job
                    running[pool.submit(work, job)] = job
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
                    figure = f'AP {record["metrics"]["AP"]:.1f}'
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
    cfg = job_config(next(job for job in results if job.model == table.model))
    notes = [
        f'`configs/study/{table.model}_{args.data}.py`: a small model trained from '
        f'scratch for {cfg.train_cfg.max_epochs} epochs on one CPU core a run, all '
        f'rows at equal settings. AP in per cent on the {args.split} split, means '
        'over the seeds.'
    ]
    words = [word for word in sys.argv[1:] if word != '--report']
    command = shlex.join(['python', 'tools/study.py', *words])
    text = study_report.page(title, command, notes, rows, baseline, f'{stem}.png')
    path = args.out / f'{stem}.md'
    path.write_text(text)
    return path


def main() -> None:
    args = parse_args()
    os.chdir(ROOT)
    # For the processes to come. One core each: the runs share the machine.
    os.environ.update(OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    if args.data == 'occlusion':
        occlusion.build('work_dirs/data/occlusion')
    jobs = collect_jobs(args)
    if not jobs:
        sys.exit(f'--rows {" ".join(args.rows)}: no such row in {args.tables}')
    if args.report:
        results = {job: record for job in jobs if (record := finished(job))}
        print(f'{len(results)} of {len(jobs)} runs are done')
        if not results:
            sys.exit('nothing to report yet')
    else:
        results = run_all(jobs, args.processes)
    for name in args.tables:
        path = write_results(name, results, args)
        print(f'\n{path}\n\n{path.read_text()}')


if __name__ == '__main__':
    main()
