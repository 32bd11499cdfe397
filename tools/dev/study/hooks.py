"""Hooks of the study's trainings: random numbers, and what a training records."""

import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from tools.quickstart import positives_of


class EpochSeedHook(Hook):
    """Seeds all random numbers of an epoch by the seed and the epoch's number.

    So flips are the same for every row, however many random numbers its model drew
    when it was built, and a resumed run equals one that was not interrupted.
    (:class:`mmdet_consistent.SeedHook` draws other numbers, so with it the committed
    results could not be reproduced.)
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed every source of random numbers."""
        set_random_seed(1000 * self.seed + runner.epoch)


class RecordHook(Hook):
    """Records the steps' durations and positives; writes a line per epoch.

    Attributes:
        step_seconds: Duration of each training step.
        num_pos: Name of a stage's positives to their number in each step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.step_seconds: list[float] = []
        self.num_pos: dict[str, list[float]] = {}

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Start the clock of a step."""
        self.start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: dict
    ) -> None:
        """Record a step."""
        self.step_seconds.append(time.perf_counter() - self.start)
        for name, value in positives_of(runner, outputs).items():
            self.num_pos.setdefault(name, []).append(value)

    def after_train_epoch(self, runner: Runner) -> None:
        """Write how far the training has come."""
        with open(self.path, 'a') as file:
            file.write(f'epoch {runner.epoch + 1}/{runner.max_epochs}\n')
