"""The same random numbers at the same place of a run, stopped in between or not."""

from typing import Any

import mmengine
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.utils import digit_version

from ..seeding import seed_all, worker_init

# Whether mmengine itself loads the data of finished iterations again.
LOADS_AGAIN = digit_version(mmengine.__version__) >= digit_version('0.10.3')


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds every epoch (or every iteration) by the run's seed and its number.

    A training that was stopped and resumed then meets the same augmentations as
    one that wasn't, without the generators' states being kept in a file. Two
    more things are mended by the way: mmengine gives the workers of a data loader
    the same seed in every epoch, and equal seeds to all ranks.

    In an iteration-based run the data of the finished iterations are loaded
    again, as mmengine does it from 0.10.3 on; that also brings its workers to where
    they were.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this epoch, and the workers that will load it."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = _SeededIterator(
                loop.dataloader_iterator, runner.seed, runner.rank
            )
            if not LOADS_AGAIN:
                loop.dataloader_iterator.skip_iter(runner.iter)
            return
        seed_all(runner.seed, runner.epoch, runner.rank)
        loader = loop.dataloader
        if getattr(loader, 'num_workers', 0) > 0:
            loader.worker_init_fn = worker_init(runner.seed, runner.epoch, runner.rank)
            # Persistent workers would carry on with the last epoch's streams,
            # which a resumed run doesn't have: let the loader start new ones.
            loader._iterator = None


class _SeededIterator:
    """An endless iterator over batches that seeds before each of them."""

    def __init__(self, batches: Any, seed: int, rank: int) -> None:
        self.batches = batches
        self.seed = seed
        self.rank = rank
        self.count = 0

    def __iter__(self) -> '_SeededIterator':
        return self

    def __next__(self) -> Any:
        seed_all(self.seed, self.count, self.rank)
        self.count += 1
        return next(self.batches)

    def skip_iter(self, number: int) -> None:
        """Load batches again; onedl-mmengine calls this when it resumes."""
        for _ in range(number):
            next(self)
