"""Steps that all tools take before they build a Runner."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config, ConfigDict

from ..utils.errors import UserError
from .safeguards import check_names


def load_config(
    path: str,
    cfg_options: Optional[dict] = None,
    launcher: str = 'none',
    work_dir: Optional[str] = None,
) -> Config:
    """Read a config, and set launcher, backend and work folder.

    Args:
        path: Config file.
        cfg_options: Overrides, ``key.of.field`` to value.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        work_dir: Folder for logs and checkpoints. Default: that of the config, or
            ``work_dirs/<config name>``.

    Returns:
        The config; without a GPU its backend is gloo.

    Raises:
        SystemExit: If the config file doesn't exist.
        ConfigError: If an option names a field that doesn't exist.
    """
    if not os.path.isfile(path):
        raise SystemExit(f'config not found: {path}; our own are in configs/')
    cfg = Config.fromfile(path)
    check_names(cfg, cfg_options or ())
    cfg.launcher = launcher
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    if launcher != 'none' and not torch.cuda.is_available():
        join_cpu_processes(cfg)
    own = cfg.get('work_dir') or os.path.join('work_dirs', Path(path).stem)
    cfg.work_dir = own if work_dir is None else work_dir
    return cfg


def tested_dataset(cfg: Config) -> ConfigDict:
    """Return the data set that a config is tested on, without its wrappers."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


@contextlib.contextmanager
def friendly_errors() -> Iterator[None]:
    """Print a :class:`UserError` without its traceback, and exit with status 1.

    After success the ranks leave their process group together: one that exists when
    the interpreter ends may abort it, and a slower rank would find its connections
    closed.
    """
    try:
        yield
    except UserError as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from error
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def join_cpu_processes(cfg: Config) -> None:
    """Set up distributed training without a GPU.

    mmengine itself selects a CUDA device per rank and passes it to the model wrapper;
    it leaves a process group alone that exists already.

    Args:
        cfg: The config; its backend and model wrapper are set for CPUs.
    """
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
