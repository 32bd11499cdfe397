"""Makes random numbers depend on the place in a run, not on interruptions."""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.utils import digit_version

# Since then mmengine itself reloads the data of finished iterations.
RELOADS = digit_version(mmengine.__version__) >= digit_version('0.10.3')


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds each epoch (or iteration) by the run's seed and its own number.

    So a resumed training draws the same augmentations as an uninterrupted one, without
    generator states in a file. This also corrects two flaws of mmengine, which gives
    the workers of a data loader the same seed in every epoch, and all ranks equal
    seeds.

    Where the config has no ``randomness.seed``, mmengine draws one, by which a resumed
    training would shuffle its images: its loader is built before the checkpoint's seed
    is known. The hook corrects this, too.

    In an iteration-based run the data of the finished iterations are loaded again, as
    mmengine does since 0.10.3; that brings its workers to where they were, too.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Remember the seed by which the data loader was built."""
        self._loaders_seed = runner.seed

    def before_train(self, runner: Runner) -> None:
        """Let the sampler use the seed of the checkpoint that training resumes from."""
        loop = runner.train_loop
        sampler = loop.dataloader.sampler
        drawn, resumed = self._loaders_seed, runner.seed
        if drawn == resumed or getattr(sampler, 'seed', None) != drawn:
            return
        if not isinstance(loop, IterBasedTrainLoop):
            sampler.seed = resumed
            return
        # Its workers have begun to load already.
        config = dict(runner._train_dataloader, dataset=loop.dataloader.dataset)
        loop.dataloader = runner.build_dataloader(config, seed=resumed)
        loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this epoch, and the workers that will load its data."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            batches = _SeededIterator(loop.dataloader_iterator, runner)
            loop.dataloader_iterator = batches
            if not RELOADS:
                batches.skip_iter(runner.iter)
            return
        place = (runner.seed, runner.epoch, runner.rank)
        seed_all(*place)
        loader = loop.dataloader
        if getattr(loader, 'num_workers', 0) > 0:
            loader.worker_init_fn = partial(seed_all, *place)  # and the worker's id
            # Persistent workers would continue the last epoch's streams, which a
            # resumed run does not have: let the loader start new ones.
            loader._iterator = None


def seed_all(*place: int) -> None:
    """Seed the generators of Python, numpy and torch (CPU and GPUs).

    Args:
        place: Numbers that identify a place in the run: seed, epoch, rank, …. Other
            numbers, or the same in another order, give unrelated streams.
    """
    words = np.random.SeedSequence([int(n) for n in place]).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed((int(words[2]) << 32) | int(words[3]))


class _SeededIterator(Iterator):
    """An endless iterator over batches that seeds before each of them."""

    def __init__(self, batches: Any, runner: Runner) -> None:
        self.batches = batches
        self.seed, self.rank = runner.seed, runner.rank
        self.count = 0

    def __next__(self) -> Any:
        seed_all(self.seed, self.count, self.rank)
        self.count += 1
        return next(self.batches)

    def skip_iter(self, number: int) -> None:
        """Load this many batches, as onedl-mmengine does when it resumes."""
        for _ in range(number):
            next(self)
