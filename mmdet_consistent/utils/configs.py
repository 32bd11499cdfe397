"""Find our configs, also as ``mmdet_consistent::NAME.py`` in mmengine's configs."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import mmengine.hub.hub
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

PACKAGE = Path(__file__).resolve().parents[1]
PREFIX = 'mmdet_consistent::'


def config_root() -> Path:
    """Return the folder of our configs, in an installed package or in the checkout.

    Raises:
        FileNotFoundError: If the package was installed without them.
    """
    for root in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs'):
        if (root / 'con_retinanet_r50_fpn.py').is_file():
            return root
    raise FileNotFoundError(
        f'mmdet_consistent in {PACKAGE} has no configs: install it from its wheel, or '
        'from a checkout with `pip install -e .`'
    )


def config_path(name: str) -> str:
    """Return the full path of one of our configs.

    A program that reads a config before it imports this package, such as mmdet's own
    ``tools/train.py``, can inherit from ours by this line:
    ``_base_ = __import__('mmdet_consistent').config_path('NAME.py')``.

    Args:
        name: Path below ``configs/``, such as ``con_retinanet_r50_fpn.py``.

    Raises:
        FileNotFoundError: If there is no such config. The message names the nearest.
    """
    root = config_root()
    path = root / name
    if path.is_file():
        return str(path)
    known = sorted(str(p.relative_to(root)) for p in root.rglob('*.py'))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    raise FileNotFoundError(
        f'mmdet_consistent has no config {name!r}; '
        + (f'did you mean {" or ".join(near)}?' if near else f'there are {known}')
    )


def plain_datasets(config: object) -> Iterator[Any]:
    """Yield the configs of the data sets in a ``dataset`` field, without wrappers."""
    if isinstance(config, dict):
        inner = config.get('datasets') or [config.get('dataset')]
        if inner == [None]:
            yield config
        for other in inner:
            yield from plain_datasets(other)


def resolve(registry: Registry, kind: Any) -> Optional[type]:
    """Return the class that a config's ``type`` names: a class, or a name with a scope.

    Args:
        registry: The registry in which the class should be.
        kind: ``type`` of a config.

    Returns:
        The class; None if it is unknown.
    """
    if not isinstance(kind, str):
        return kind
    # mmengine finds a name of mmcv's under mmdet's scope only without it.
    return registry.get(kind) or registry.get(kind.rpartition('.')[2])


def transform_class(step: Any) -> Optional[type]:
    """Return the class of a pipeline's step. None if it is unknown."""
    return resolve(TRANSFORMS, step['type'])


def install_prefix() -> None:
    """Let mmengine find ``mmdet_consistent::NAME.py``; calling it again does nothing.

    mmengine's own look-up requires a folder in the name, does not find packages
    installed as a link, and takes the package for a registry's scope. Names of other
    packages are passed on to mmengine.
    """
    if 'mmdet_consistent' in MODULE2PACKAGE:
        return
    MODULE2PACKAGE['mmdet_consistent'] = 'mmdet_consistent'
    base_path = Config._get_cfg_path
    hub_config = mmengine.hub.hub.get_config

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, Optional[str]]:
        if cfg_path.startswith(PREFIX):
            # Everything that our configs name is registered with mmdet.
            return config_path(cfg_path[len(PREFIX) :]), 'mmdet'
        return base_path(cfg_path, filename)

    def get_config(cfg_path: str, pretrained: bool = False) -> Config:
        if not cfg_path.startswith(PREFIX):
            return hub_config(cfg_path, pretrained)
        if pretrained:
            raise ValueError(
                f'{cfg_path}: mmdet_consistent publishes no trained weights; leave '
                'pretrained out and load a checkpoint of your own'
            )
        return Config.fromfile(config_path(cfg_path[len(PREFIX) :]))

    replaced: Any = Config
    replaced._get_cfg_path = staticmethod(get_cfg_path)
    mmengine.hub.hub.get_config = mmengine.hub.get_config = get_config
