"""The study's first table at a real size: paired trainings on a GPU."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Optional

import torch

from tools.dev.study.pool import start_process
from tools.dev.study.report import Origin, write_csv
from tools.dev.study.runs import Job, run_job
from tools.dev.study.tables import TABLES

from .rows import Row, failure

TABLE = 'gpu'
COMMAND = 'bash tools/dev/gpu_check.sh training'
MEMORY = 8e9  # bytes of GPU memory that a training may need


class Plan(NamedTuple):
    """Sizes of the table: real ones, or tiny ones for a dry run.

    Attributes:
        model: Name of the config: ``tools/dev/study/configs/MODEL_bccd.py``.
        seeds: Seeds; each trains every row.
        split: ``'test'`` or ``'val'``.
        processes: Number of trainings at the same time.
    """

    model: str
    seeds: tuple[int, ...]
    split: str
    processes: int


REAL = Plan('retinanet_gpu', (0, 1, 2, 3, 4), 'test', 5)
DRY = Plan('retinanet_gpu_dry', (0,), 'val', 2)


def jobs(plan: Plan, work_dir: Path) -> list[Job]:
    """Return all trainings; those of a seed follow each other."""
    return [
        Job(plan.model, 'bccd', row, seed, plan.split, None, work_dir)
        for seed in plan.seeds
        for row in TABLES[TABLE].rows.values()
    ]


def num_processes(plan: Plan, cores: int) -> int:
    """Return how many trainings this machine can run at the same time."""
    fit = max(1, cores // 2)
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        fit = min(fit, max(1, int(memory / MEMORY)))
    return min(plan.processes, fit)


def run_isolated(job: Job, end: float) -> Optional[dict]:
    """Run a job in a process of its own, whose crash harms no other job.

    Args:
        job: The training.
        end: Time on ``time.monotonic`` after which none is started.

    Returns:
        The job's record, or ``None`` if there was no time left.
    """
    if time.monotonic() > end:
        return None
    with ProcessPoolExecutor(1, get_context('spawn'), start_process) as pool:
        return pool.submit(run_job, job).result()


def setting_of(job: Job) -> str:
    """Return the name of a job's row in the table, and its seed."""
    name = next(n for n, row in TABLES[TABLE].rows.items() if row == job.row)
    return f'{name}, seed {job.seed}'


def row_of(job: Job, record: Optional[dict]) -> Row:
    """Return the row of a training that did not fail."""
    value = 'not trained: the time was up'
    if record:
        step = 1000 * record['step_seconds']
        value = f'AP {record["metrics"]["AP"]:.1f}, {step:.0f} ms per step'
    return Row('training', setting_of(job), value, '')


def write_runs(path: Path, plan: Plan, records: dict[Job, dict]) -> None:
    """Write the records of all trainings so far as the study's CSV file."""
    runs: dict[str, dict[int, dict]] = {}
    for name, row in TABLES[TABLE].rows.items():
        found = {job.seed: r for job, r in records.items() if job.row == row}
        if found:
            runs[name] = found
    write_csv(path, Origin(COMMAND, TABLE, 'bccd', plan.split), runs)


def train_table(
    plan: Plan, work_dir: Path, path: Path, cores: int, end: float
) -> Iterator[Row]:
    """Train all rows with all seeds; yield a row as soon as one is done.

    Args:
        plan: Sizes.
        work_dir: Folder of the trainings. What is done there is not done again.
        path: CSV file of all runs, written anew after each.
        cores: Number of CPU cores.
        end: Time on ``time.monotonic`` after which no training is started.
    """
    records: dict[Job, dict] = {}
    path.unlink(missing_ok=True)
    with ThreadPoolExecutor(num_processes(plan, cores)) as threads:
        work = partial(run_isolated, end=end)
        running = {threads.submit(work, job): job for job in jobs(plan, work_dir)}
        for future in as_completed(running):
            job = running[future]
            try:
                record = future.result()
            except Exception as error:  # whatever it is, other rows can be trained
                yield failure('training', setting_of(job), error)
                continue
            if record:
                records[job] = record
                write_runs(path, plan, records)
            yield row_of(job, record)
