"""What our tools add to any config, so that a training can be trusted."""

import difflib
import inspect
import warnings
from collections.abc import Iterable, Iterator

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from ..utils.errors import ConfigError

SAFE = 'mmdet_consistent.engine.safe'
CHECKED = {
    'CocoDataset': 'CheckedCocoDataset',
    'VOCDataset': 'CheckedVOCDataset',
    'XMLDataset': 'CheckedXMLDataset',
}
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
    """Find misspelt fields, which mmengine would pass over in silence.

    Args:
        cfg: The config as its file gives it. A name that is nearly a field's is
            warned of: it may be the file's own variable.
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
    for name in cfg:
        if name not in FIELDS:
            suggestion = _suggestion(name, FIELDS - set(cfg.keys()), cutoff=0.9)
            if suggestion:
                said = f'{cfg.filename}: nothing reads {name!r}{suggestion}'
                warnings.warn(said, stacklevel=2)


def add_safeguards(
    cfg: Config, bad_data: str = 'drop', check_images: str = 'no'
) -> None:
    """Turn the safe hooks and data sets on, where the config has the plain ones.

    Args:
        cfg: The config of a training; changed in place.
        bad_data: ``drop``, ``refuse`` or ``keep``, which leaves data sets alone.
        check_images: ``no``, ``quick`` or ``full``: before the training starts.
    """
    add_import(cfg)
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    if checkpoint is not None and checkpoint.get('type') == 'CheckpointHook':
        checkpoint.type = 'SafeCheckpointHook'
    add_hooks(cfg, 'SeedHook', 'ConfigCheckHook', 'FiniteLossHook')
    if cfg.get('launcher', 'none') != 'none':
        # Batch norm's statistics are each rank's own, but only rank 0's are saved.
        add_hooks(cfg, 'SyncBuffersHook')
    if bad_data == 'keep':
        return
    for field in ('train_dataloader', 'val_dataloader'):
        for dataset in _datasets((cfg.get(field) or {}).get('dataset')):
            if dataset.get('type') in CHECKED:
                dataset.type = CHECKED[dataset.type]
                dataset.on_bad_data = bad_data
                dataset.check_images = check_images


def add_hooks(cfg: Config, *types: str) -> None:
    """Add hooks of these types, unless the config has them."""
    present = {
        hook.get('type')
        for hook in [*(cfg.get('custom_hooks') or []), *cfg.default_hooks.values()]
        if isinstance(hook, dict)
    }
    new = [ConfigDict(type=t) for t in types if t not in present]
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *new]


def add_import(cfg: Config) -> None:
    """Make the config import our hooks and our safe loading.

    It is saved with the checkpoints, where other programs find it.
    """
    imports = cfg.setdefault('custom_imports', ConfigDict(imports=[]))
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if SAFE not in names:
        imports.imports = [*names, SAFE]


def _datasets(config: object) -> Iterator[ConfigDict]:
    """The data sets inside a ``dataset`` field, wrappers opened."""
    if not isinstance(config, dict):
        return
    inner = config.get('datasets') or [config.get('dataset')]
    if inner == [None]:
        yield config
    for other in inner:
        yield from _datasets(other)


def _suggestion(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f': did you mean {close[0]!r}?' if close else ''
