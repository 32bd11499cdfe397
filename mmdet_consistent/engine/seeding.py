"""Random numbers that depend on where a run is, not on how it got there."""

import random
from functools import partial

import numpy as np
import torch


def seed_all(*entropy: int) -> None:
    """Seed Python's, numpy's and torch's generators (CPU and GPUs).

    Args:
        entropy: Numbers that name the place in the run: seed, epoch, rank, ….
            Other numbers, or the same in another order, give unrelated streams.
    """
    words = np.random.SeedSequence([int(n) for n in entropy]).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed((int(words[2]) << 32) | int(words[3]))


def seed_worker(worker_id: int, entropy: tuple[int, ...]) -> None:
    """A data loader's ``worker_init_fn``, by ``functools.partial``."""
    seed_all(*entropy, worker_id)


def worker_init(*entropy: int) -> partial:
    """Give each worker of a data loader its own stream from ``entropy``."""
    return partial(seed_worker, entropy=entropy)
