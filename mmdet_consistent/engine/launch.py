"""What every tool does before it builds a Runner."""

import contextlib
import os
from collections.abc import Iterator
from typing import Optional

import torch
from mmengine.config import Config

from ..utils.errors import UserError
from .safeguards import check_names


def load_config(
    path: str,
    cfg_options: Optional[dict] = None,
    launcher: str = 'none',
    work_dir: Optional[str] = None,
) -> Config:
    """Read a config and settle launcher, backend and work folder.

    Args:
        path: Config file.
        cfg_options: Overrides, ``key.of.field`` to value.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        work_dir: Folder for logs and checkpoints; default
            ``work_dirs/<config name>``, unless the config says another.

    Returns:
        The config, with gloo as the backend where there is no GPU.

    Raises:
        SystemExit: If the config file doesn't exist.
        ConfigError: If an option names a field that doesn't exist.
    """
    if not os.path.isfile(path):
        raise SystemExit(f'config not found: {path}; configs/ holds those we ship')
    cfg = Config.fromfile(path)
    check_names(cfg, cfg_options or ())
    cfg.launcher = launcher
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    if launcher != 'none' and not torch.cuda.is_available():
        join_cpu_processes(cfg)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join(
            'work_dirs', os.path.splitext(os.path.basename(path))[0]
        )
    return cfg


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Print an error that explains itself without its traceback, with status 1.

    When all went well, the process group is left in order: one that is still there
    at the interpreter's end may abort it, after the work was done. All leave together:
    a slower process would find its connections closed.
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

    mmengine selects a CUDA device for every rank and gives it to the model
    wrapper. It leaves a process group alone that is already there.

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
