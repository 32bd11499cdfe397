"""Trainings in parallel processes, each after the one that it starts from."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Optional

import cv2
import torch

from tools.dev import ROOT

from .runs import Job, prerequisite, run_job, train
from .tables import PRETRAINING


class Queue:
    """Jobs in order, each with the jobs that must be done before it.

    Attributes:
        pending: Jobs that have not been started.
        done: Jobs that are done.
        failures: Job to what made it fail.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self.pending: list[Job] = []
        self.needs: dict[Job, Optional[Job]] = {}
        self.done: set[Job] = set()
        self.failures: dict[Job, str] = {}
        for job in jobs:
            chain = [job]
            while before := prerequisite(chain[0]):
                self.needs[chain[0]] = before
                chain.insert(0, before)
            # Each just before the first job that starts from it.
            self.pending += [one for one in chain if one not in self.pending]
        self.total = len(self.pending)

    def pop(self) -> Optional[Job]:
        """Return the first job that can be started, if there is one."""
        for job in self.pending:
            if self.needs.get(job) in (None, *self.done):
                self.pending.remove(job)
                return job
        return None

    def fail(self, job: Job, error: str) -> None:
        """Record a failure; the jobs that need this one fail too."""
        self.failures[job] = error
        for other in [one for one in self.pending if self.needs.get(one) == job]:
            self.pending.remove(other)
            self.fail(other, f'{job.name} failed')


def start_process() -> None:
    """Set a worker process up: one core, no output."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    os.chdir(ROOT)
    # The libraries print; progress is reported by the parent.
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115


def run_all(
    jobs: list[Job], processes: int, work: Callable[[Job], dict] = run_job
) -> dict[Job, dict]:
    """Run the jobs; print what is done and how long the rest may take.

    Args:
        jobs: The jobs, those to start first first.
        processes: Number of jobs that run at the same time.
        work: Function of a job that returns its record.

    Returns:
        Job to record. If some fail, the program ends after the others are done.
    """
    queue = Queue(jobs)
    results: dict[Job, dict] = {}
    running: dict[Future, Job] = {}
    start = time.time()
    pool = ProcessPoolExecutor(processes, get_context('spawn'), start_process)
    try:
        while queue.pending or running:
            while len(running) < processes and (job := queue.pop()):
                task = train if job.row == PRETRAINING else work
                running[pool.submit(task, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    record = future.result()
                except Exception as error:  # whatever it is, other jobs can be run
                    queue.fail(job, f'{type(error).__name__}: {error}')
                    print(f'FAILED {job.name}: {queue.failures[job]}', flush=True)
                    continue
                queue.done.add(job)
                if job.row != PRETRAINING:
                    results[job] = record
                done = len(queue.done)
                left = (time.time() - start) / done * (queue.total - done) / 60
                print(
                    f'[{done}/{queue.total}] {job.name}: {figure(record)}; about '
                    f'{left:.0f} min left',
                    flush=True,
                )
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            process.terminate()
        print('\nStopped. The same command continues from here.')
        sys.exit(130)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if queue.failures:
        lines = (f'{job.name}: {text}' for job, text in queue.failures.items())
        title = f'{len(queue.failures)} of {queue.total} runs failed, the rest is kept:'
        sys.exit('\n'.join([title, *lines]))
    return results


def figure(record: dict) -> str:
    """Return the AP of a record, if it has one."""
    metrics = record.get('metrics') or record.get('final')
    return f'AP {metrics["AP"]:.1f}' if metrics else 'done'
