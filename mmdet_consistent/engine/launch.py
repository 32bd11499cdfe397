"""Steps that all tools take before they build a Runner: read a config, make it safe."""

import contextlib
import difflib
import inspect
import os
import subprocess
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Optional

import torch
from mmdet.registry import HOOKS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..datasets.check import use_checked
from ..utils.configs import plain_datasets, resolve
from ..utils.errors import ConfigError, UserError
from .hooks import SafeCheckpointHook

SAFE_LOADING = 'mmdet_consistent.engine.safe'
# Fields that Runner.from_cfg, mmengine and the tools read.
FIELDS = {
    *inspect.signature(Runner.__init__).parameters,
    'activation_checkpointing',
    'backend_args',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'tta_model',
    'tta_pipeline',
} - {'self', 'cfg'}
# Variables of torchrun to those of other launchers that have the same values.
LAUNCHER_VARIABLES = {
    'slurm': {
        'RANK': 'SLURM_PROCID',
        'WORLD_SIZE': 'SLURM_NTASKS',
        'LOCAL_RANK': 'SLURM_LOCALID',
    },
    'mpi': {
        'RANK': 'OMPI_COMM_WORLD_RANK',
        'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE',
        'LOCAL_RANK': 'OMPI_COMM_WORLD_LOCAL_RANK',
    },
}


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
    cfg.merge_from_dict(cfg_options or {})
    if launcher != 'none' and not torch.cuda.is_available():
        join_cpu_processes(cfg)
    own = cfg.get('work_dir') or os.path.join('work_dirs', Path(path).stem)
    cfg.work_dir = own if work_dir is None else work_dir
    return cfg


def check_names(cfg: Config, options: Iterable[str] = ()) -> None:
    """Find misspelt fields, which mmengine would ignore silently.

    Args:
        cfg: The config as read from its file. A name that is close to a field's gives
            a warning only: it may be a variable of the file's own.
        options: Names given on the command line, such as ``train_cfg.max_epochs``.

    Raises:
        ConfigError: If an option's first part is neither in the config nor a field.
    """
    known = FIELDS.union(cfg)
    for option in options:
        name = option.split('.')[0]
        if name not in known:
            raise ConfigError(
                f'--cfg-options {option}: the config has no {name!r}'
                + _suggestion(name, known)
            )
    for name in set(cfg) - FIELDS:
        suggestion = _suggestion(name, FIELDS - set(cfg), cutoff=0.9)
        if suggestion:
            message = f'{cfg.filename}: nothing reads {name!r}{suggestion}'
            warnings.warn(message, stacklevel=2)


def _suggestion(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f': did you mean {close[0]!r}?' if close else ''


def join_cpu_processes(cfg: Config) -> None:
    """Set up distributed training without a GPU.

    mmengine itself selects a CUDA device per rank and passes it to the model wrapper;
    it leaves a process group alone that exists already.

    Args:
        cfg: The config; its backend and model wrapper are set for CPUs.
    """
    cfg.env_cfg = ConfigDict(cfg.get('env_cfg') or {}, dist_cfg=dict(backend='gloo'))
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    if not torch.distributed.is_initialized():
        _translate_variables(cfg.get('launcher', 'none'))
        torch.distributed.init_process_group('gloo')


def _translate_variables(launcher: str) -> None:
    """Set the variables of torchrun by those of another launcher.

    MMEngine does the same, but selects a CUDA device on the way.
    """
    if launcher in LAUNCHER_VARIABLES:
        os.environ.setdefault('MASTER_PORT', '29500')
    for name, source in LAUNCHER_VARIABLES.get(launcher, {}).items():
        if source not in os.environ:
            raise ConfigError(
                f'--launcher {launcher}: the variable {source} is not set; start the '
                'processes with srun (tools/slurm_train.sh) or mpirun'
            )
        os.environ[name] = os.environ[source]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        hosts = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        os.environ['MASTER_ADDR'] = hosts.stdout.split()[0]


def add_safeguards(
    cfg: Config, bad_data: str = 'drop', check_images: str = 'no'
) -> None:
    """Replace mmengine's and mmdet's plain hooks and data sets by our safe ones.

    Hooks and data sets of other types stay as they are.

    Args:
        cfg: The config of a training; changed in place.
        bad_data: ``drop`` or ``refuse``, see :class:`CheckedMixin`; ``keep`` leaves
            the data sets unchecked.
        check_images: ``no``, ``quick`` or ``full``: check of image files before
            training starts.
    """
    cfg.default_hooks = cfg.get('default_hooks') or {}
    cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    for hook, kind in _hooks(cfg):
        if issubclass(kind, SafeCheckpointHook):
            continue
        if kind is CheckpointHook and isinstance(hook, dict):
            hook['type'] = 'SafeCheckpointHook'
        elif issubclass(kind, CheckpointHook):
            warnings.warn(
                f'{kind.__name__} writes checkpoints in its own way: a kill may leave '
                'half a file, and --resume would not fall back from it. Derive it from '
                'SafeCheckpointHook',
                stacklevel=2,
            )
    add_hooks(cfg, 'SeedHook', 'ConfigCheckHook', 'FiniteLossHook')
    if cfg.get('launcher', 'none') != 'none':
        # Each rank has its own batch-norm statistics, but only rank 0's are saved.
        add_hooks(cfg, 'SyncBuffersHook')
    if bad_data == 'keep':
        return
    use_checked(cfg, on_bad_data=bad_data, check_images=check_images)


def add_hooks(cfg: Config, *types: str) -> None:
    """Add hooks of these types, unless the config has them, and their import.

    The import switches safe loading on, too. The config is saved with the checkpoints,
    where other programs read it.
    """
    custom = list(cfg.get('custom_hooks') or [])
    present = {name.__name__ for _, kind in _hooks(cfg) for name in kind.__mro__}
    cfg.custom_hooks = custom + [ConfigDict(type=t) for t in types if t not in present]
    cfg.custom_imports = cfg.get('custom_imports') or {}
    imports = cfg.custom_imports
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if SAFE_LOADING not in names:
        imports.imports = [*names, SAFE_LOADING]


def _hooks(cfg: Config) -> list[tuple[Any, type]]:
    """Return the hooks of a config with their classes, as far as these are known."""
    default = cfg.get('default_hooks') or {}
    hooks = [*default.values(), *(cfg.get('custom_hooks') or [])]
    kinds = [
        resolve(HOOKS, hook.get('type')) if isinstance(hook, dict) else type(hook)
        for hook in hooks
    ]
    return [(hook, kind) for hook, kind in zip(hooks, kinds) if isinstance(kind, type)]


def count_accumulation(runner: Runner) -> None:
    """Let the scaled learning rate fit the images per step of the optimizer.

    mmengine scales by the batch of the loader alone, although a step sees as many of
    them as are accumulated.

    Args:
        runner: The runner, before it trains.
    """
    scale = runner.auto_scale_lr or {}
    optim = runner.cfg.get('optim_wrapper') or {}
    count = optim.get('accumulative_counts') or 1
    if scale.get('enable') and count > 1:
        base = scale['base_batch_size']
        runner.auto_scale_lr = dict(scale, base_batch_size=base / count)
        runner.logger.info(
            f'accumulative_counts={count}: a step of the optimizer sees {count} '
            f'batches, so that base_batch_size={base} is that of {count} batches, too'
        )


def tested_datasets(cfg: Config) -> list[ConfigDict]:
    """Return the data sets that a config is tested on, without their wrappers.

    Raises:
        ConfigError: If there is none.
    """
    found = list(plain_datasets((cfg.get('test_dataloader') or {}).get('dataset')))
    if not found:
        raise ConfigError(
            f'{cfg.filename}: test_dataloader.dataset is missing; it names the images '
            'to test on'
        )
    return found


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
