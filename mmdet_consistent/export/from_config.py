"""Read from a config what an exported file tells the program that prepares images."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import mmcv.transforms as mmcv_transforms
from mmdet.datasets import transforms
from mmdet.registry import DATASETS
from mmengine.config import Config

from ..engine.launch import tested_datasets
from ..utils.configs import resolve, transform_class
from ..utils.errors import ConfigError

# Steps that leave the pixels as they are. Resizing is stored in the file, and what the
# data preprocessor does is part of the graph; any other step would get lost.
LOADS = (mmcv_transforms.LoadImageFromFile, transforms.LoadImageFromNDArray)
KEEP_PIXELS = (
    mmcv_transforms.LoadAnnotations,
    transforms.FilterAnnotations,
    transforms.LoadEmptyAnnotations,
    transforms.LoadProposals,
    transforms.PackDetInputs,
)
RESIZES = (mmcv_transforms.Resize, transforms.Resize)
DEFAULTS = dict(color_type='color', backend='cv2', interpolation='bilinear')


def test_resize(cfg: Config) -> Optional[dict]:
    """Return the resizing of the test pipeline, if that is all it does to an image.

    Returns:
        ``scale`` [width, height] and ``keep_ratio``; None if images keep their size.

    Raises:
        ConfigError: If the pipeline changes images in another way, or the joined test
            sets are resized differently. The message names the step.
    """
    found = []
    for pipeline in test_pipelines(cfg):
        steps = [_resizing(step) for step in pipeline]
        found.append([resize for resize in steps if resize is not None])
    if any(len(resizes) > 1 or resizes != found[0] for resizes in found):
        raise ConfigError(
            'test_dataloader.dataset: the exported file stores one Resize, but images '
            f'are resized more than once, or differently in joined sets: {found}'
        )
    return found[0][0] if found[0] else None


def test_pipelines(cfg: Config) -> list[list]:
    """Return the steps of each joined test set, followed by those of its wrappers.

    Raises:
        ConfigError: If there is no test set.
    """
    tested_datasets(cfg)  # raises where there is none
    return list(_pipelines(cfg.test_dataloader.dataset))


def image_channels(cfg: Config) -> int:
    """Return the channels of the images that the test pipeline loads: 3, or 1 if gray.

    Raises:
        ConfigError: If joined test sets differ.
    """
    steps = [step for pipeline in test_pipelines(cfg) for step in pipeline]
    kinds = {
        step.get('color_type', DEFAULTS['color_type'])
        for step in steps
        if transform_class(step) in LOADS
    }
    if len(kinds) > 1:
        raise ConfigError(
            'test_dataloader.dataset: the exported file takes images of one color_type,'
            f' but joined sets are loaded by {sorted(kinds)}'
        )
    return 1 if kinds == {'grayscale'} else 3


def _pipelines(dataset: Any, after: Sequence = ()) -> Iterator[list]:
    """Yield the steps of each joined data set, followed by those of its wrappers."""
    steps = [*(dataset.get('pipeline') or ()), *after]
    inner = dataset.get('datasets') or filter(None, [dataset.get('dataset')])
    parts = [pipeline for part in inner for pipeline in _pipelines(part, steps)]
    yield from parts or [steps]


def _resizing(step: Any) -> Optional[dict]:
    """Return what a Resize does to an image, and None for a step that does nothing."""
    kind = transform_class(step)
    options = {name: step.get(name, right) for name, right in DEFAULTS.items()}
    if kind in LOADS and options['color_type'] == 'grayscale':
        options['color_type'] = DEFAULTS['color_type']  # the file takes either
    if kind in RESIZES and step.get('scale') is not None:
        scale = step['scale']
        scale = [scale, scale] if isinstance(scale, (int, float)) else list(scale)
        resize = dict(scale=scale, keep_ratio=bool(step.get('keep_ratio', False)))
    elif kind in LOADS or (kind and issubclass(kind, KEEP_PIXELS)):
        resize = None
    else:
        options = {}
    if options != DEFAULTS:
        name = getattr(step['type'], '__name__', step['type'])
        shown = ', '.join(f'{k}={v!r}' for k, v in step.items() if k != 'type')
        raise ConfigError(
            f'test_dataloader.dataset.pipeline has {name}({shown}), which the exported '
            "file would not do: besides loading and packing it can hold one 'Resize' "
            'with a scale, and the data preprocessor. Leave the step out of the test '
            'pipeline, or pad and normalise in model.data_preprocessor'
        )
    return resize


def class_names(cfg: Config, trained: Sequence[str], num_classes: int) -> list[str]:
    """Return the class names of a detector by label.

    Args:
        cfg: The config, with a test set.
        trained: The names in the checkpoint, if it has any.
        num_classes: Number of classes of the head.

    Raises:
        ConfigError: If neither checkpoint nor test set names so many classes.
    """
    tested: list[str] = []
    for dataset in tested_datasets(cfg):
        kind: Any = resolve(DATASETS, dataset['type'])
        meta = kind._load_metainfo(dataset.get('metainfo'))
        tested = tested or list(meta.get('classes') or ())
    names = list(trained or tested)
    if len(names) != num_classes:
        source = 'the checkpoint' if trained else 'test_dataloader.dataset.metainfo'
        raise ConfigError(
            f'model.bbox_head.num_classes={num_classes}, but {source} names '
            f'{len(names)} classes ({", ".join(names[:5])}{", …" * (len(names) > 5)}): '
            'set test_dataloader.dataset.metainfo=dict(classes=(...)) to the names '
            'that the detector was trained with'
        )
    if len(tested) == len(names) and tested != names:
        warnings.warn(
            f'the checkpoint was trained with the classes {names}, which the file '
            f'gets; test_dataloader.dataset.metainfo names {tested}',
            stacklevel=2,
        )
    return names
