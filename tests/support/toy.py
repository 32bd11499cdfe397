"""A training of milliseconds: a linear model on noisy data."""

import itertools
import os
import random
import signal

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.launch import join_cpu_processes

NUMBER = itertools.count()


class Noisy(Dataset):
    """Every sample is augmented by all three random generators."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, noisy=True):
        self.noisy = noisy

    def __len__(self):
        return 7

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(())
        noise = noise if self.noisy else 0
        return dict(inputs=torch.full((4,), float(index)) + noise)


class Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, inputs, mode='loss'):
        value = self.drop(self.layer(torch.stack(list(inputs)))).pow(2).mean()
        return dict(loss=value) if mode == 'loss' else [value]


class Metric(BaseMetric):
    """The sum of what the model says."""

    def process(self, data_batch, data_samples):
        self.results += [v.item() for v in data_samples]

    def compute_metrics(self, results):
        return dict(mAP=sum(results))


def same_weights(first, second):
    """Return whether two state dicts are equal, bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


@HOOKS.register_module()
class KillHook(Hook):
    """Stop the run when a hook point is met for the n-th time.

    By an exception; of several processes, the given one by a signal.
    """

    priority = 'LOWEST'

    def __init__(self, point, count, rank=None):
        self.left = count
        self.rank = rank
        setattr(self, point, self.tick)

    def tick(self, runner, **kwargs):
        self.left -= 1
        if self.left == 0 and self.rank is None:
            raise Killed
        if self.left == 0 and self.rank == runner.rank:
            os.kill(os.getpid(), signal.SIGKILL)


def train_toy(
    work_dir,
    *,
    epochs=4,
    iters=None,
    workers=0,
    persistent=False,
    resume=False,
    load_from=None,
    kill=None,
    checkpoint=None,
    hooks=(),
    lr=1e-3,
    seed=3,
    validate=False,
    distributed=False,
    optim_wrapper=None,
):
    """Train; returns the weights, and the log: (iteration, loss) pairs."""
    make_safe()  # as tools/train.py
    log = []
    cfg = Config(dict(env_cfg=dict()))
    if distributed:
        join_cpu_processes(cfg)

    class Log(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            log.append(('train', runner.iter, outputs['loss'].item()))

        def after_val_epoch(self, runner, metrics=None):
            log.append(('val', runner.epoch, runner.iter, metrics['mAP']))

    loader = dict(
        dataset=Noisy(),
        sampler=dict(type='DefaultSampler', shuffle=True),
        batch_size=2,
        num_workers=workers,
        persistent_workers=persistent,
    )
    if iters:
        loader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
        train_cfg = dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=4)
    else:
        train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=2)
    val = dict(
        val_dataloader=dict(
            dataset=Noisy(noisy=False),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
        ),
        val_cfg=dict(),
        val_evaluator=Evaluator(Metric()),
    )
    torch.manual_seed(seed or 0)  # for the model's initial weights
    custom = [dict(type='SeedHook'), Log(), *hooks]
    if kill:
        names = ('point', 'count', 'rank')
        custom.append(dict(zip(names, kill), type='KillHook'))
    runner = Runner(
        model=Linear(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=train_cfg,
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=lr), **(optim_wrapper or {})
        ),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9),
        default_hooks=dict(
            checkpoint=dict(
                **{
                    'type': 'SafeCheckpointHook',
                    'by_epoch': not iters,
                    'interval': 3 if iters else 1,
                    **(checkpoint or {}),
                },
            )
        ),
        custom_hooks=custom,
        randomness=dict(seed=seed),
        resume=resume,
        load_from=load_from and str(load_from),
        experiment_name=f'toy{next(NUMBER)}',
        default_scope='mmengine',
        log_level='WARNING',
        launcher='pytorch' if distributed else 'none',
        env_cfg=cfg.env_cfg,
        cfg=cfg,
        **(val if validate else {}),
    )  # fmt: skip
    runner.train()
    return runner.model.state_dict(), log


def train_toy_rank(rank, world, port, folder, kill, options):
    """One of ``world`` processes that train; what it found goes to a file."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    outcome = train_toy(folder, kill=kill, distributed=True, **options)
    torch.save(outcome, folder / f'rank{rank}.pt')
    torch.distributed.destroy_process_group()
