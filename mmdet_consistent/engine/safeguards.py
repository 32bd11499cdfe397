"""Check the names in a training config, and add our safe hooks and data sets."""

import difflib
import inspect
import warnings
from collections.abc import Iterable

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from ..utils.configs import plain_datasets
from ..utils.errors import ConfigError

SAFE_LOADING = 'mmdet_consistent.engine.safe'
CHECKED = ('CocoDataset', 'VOCDataset', 'XMLDataset')
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


def check_names(cfg: Config, options: Iterable[str] = ()) -> None:
    """Find misspelt fields, which mmengine would ignore silently.

    Args:
        cfg: The config as read from its file. A name that is close to a field's gives
            a warning only: it may be a variable of the file's own.
        options: Names given on the command line, such as ``train_cfg.max_epochs``.

    Raises:
        ConfigError: If an option's first part is neither in the config nor a field.
    """
    for option in options:
        name = option.split('.')[0]
        if name not in cfg and name not in FIELDS:
            raise ConfigError(
                f'--cfg-options {option}: the config has no {name!r}'
                + _suggestion(name, {*cfg.keys(), *FIELDS})
            )
    for name in set(cfg) - FIELDS:
        suggestion = _suggestion(name, FIELDS - set(cfg), cutoff=0.9)
        if suggestion:
            message = f'{cfg.filename}: nothing reads {name!r}{suggestion}'
            warnings.warn(message, stacklevel=2)


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
    add_import(cfg)
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    if checkpoint is not None and checkpoint.get('type') == 'CheckpointHook':
        checkpoint.type = 'SafeCheckpointHook'
    add_hooks(cfg, 'SeedHook', 'ConfigCheckHook', 'FiniteLossHook')
    if cfg.get('launcher', 'none') != 'none':
        # Each rank has its own batch-norm statistics, but only rank 0's are saved.
        add_hooks(cfg, 'SyncBuffersHook')
    if bad_data == 'keep':
        return
    for field in ('train_dataloader', 'val_dataloader'):
        for dataset in plain_datasets((cfg.get(field) or {}).get('dataset')):
            if dataset.get('type') in CHECKED:
                dataset.type = f'Checked{dataset.type}'
                dataset.on_bad_data = bad_data
                dataset.check_images = check_images


def add_hooks(cfg: Config, *types: str) -> None:
    """Add hooks of these types, unless the config has them."""
    custom = list(cfg.get('custom_hooks') or [])
    present = {
        hook.get('type')
        for hook in [*custom, *cfg.default_hooks.values()]
        if isinstance(hook, dict)
    }
    cfg.custom_hooks = custom + [ConfigDict(type=t) for t in types if t not in present]


def add_import(cfg: Config) -> None:
    """Make the config import our hooks and our safe loading.

    The config is saved with the checkpoints, where other programs read it.
    """
    imports = cfg.setdefault('custom_imports', ConfigDict(imports=[]))
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if SAFE_LOADING not in names:
        imports.imports = [*names, SAFE_LOADING]


def _suggestion(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f': did you mean {close[0]!r}?' if close else ''
