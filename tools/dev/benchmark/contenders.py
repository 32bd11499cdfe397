"""Who is measured: mmdet's own head and ours, in mmdet's own detectors."""

import contextlib
import copy
import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from torch import nn

import mmdet_consistent

from .cases import Case

with contextlib.suppress(ImportError):  # (an old revision of the package)
    import mmdet_consistent.engine.safe  # noqa: F401  lets mmdet's SSD predict

REFERENCE = 'mmdet'
# Consistent heads with what goes beyond the paper.
ADDITIONS: dict[str, dict] = {
    'aligned': dict(additions=[dict(type='AlignedFeatures')]),
    'soft_labels': dict(additions=[dict(type='SoftLabels')]),
    'loc_confidence': dict(additions=[dict(type='LocalizationConfidence')]),
}
# A contender is a head, with `+compile` or `+channels_last` behind it if wanted.
HEADS: dict[str, Optional[dict]] = {
    REFERENCE: None,
    'one_stage': dict(label_stages=1, reg_stages=1),
    'consistent': dict(),
    'cascade': dict(variant='cascade'),
    'gated_cascade': dict(variant='gated_cascade'),
    **ADDITIONS,
}
MODES = ('compile', 'channels_last')
HEAD_TYPES = {'retinanet': 'ConsistentRetinaHead', 'ssd': 'ConsistentSSDHead'}
# The head loss does not depend on the towers: narrow ones save time and memory.
SLIM_CHANNELS = 8


def contenders_of(detector: str) -> tuple[str, ...]:
    """The heads of the paper that the detector has; SSD's has no tower to gate."""
    lacks = {*ADDITIONS, *(('gated_cascade',) if detector == 'ssd' else ())}
    return tuple(name for name in HEADS if name not in lacks)


def split_contender(name: str) -> tuple[str, Optional[str]]:
    """``'consistent+compile'`` to its head and its mode.

    Raises:
        ValueError: If either is unknown.
    """
    head, _, mode = name.partition('+')
    if head not in HEADS or (mode and mode not in MODES):
        raise ValueError(
            f'unknown contender {name!r}: give one of {", ".join(HEADS)}, '
            f'with {" or ".join("+" + m for m in MODES)} behind it if wanted'
        )
    return head, mode or None


@functools.cache
def _base_config(path: str) -> ConfigDict:
    return get_config(path).model


def detector_config(case: Case, contender: str) -> ConfigDict:
    """The detector's model config, untrained (no file is downloaded)."""
    if case.detector == 'retinanet':
        path = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    elif max(case.height, case.width) <= 300:
        path = 'mmdet::ssd/ssd300_coco.py'
    else:
        path = 'mmdet::ssd/ssd512_coco.py'
    config = copy.deepcopy(_base_config(path))
    config.backbone.init_cfg = None
    config.bbox_head.num_classes = case.classes
    head, _ = split_contender(contender)
    options = HEADS[head]
    if options is not None:
        config.bbox_head.type = HEAD_TYPES[case.detector]
        config.bbox_head.update(options)
        if head == 'consistent':
            config.bbox_head.update(label_stages=case.stages, reg_stages=case.stages)
    return config


@contextmanager
def quiet_logger() -> Iterator[None]:
    """Keep mmengine from logging how every single parameter is initialised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def build_detector(case: Case, contender: str) -> nn.Module:
    """The whole detector, on the case's device, in training mode."""
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(detector_config(case, contender))
    with quiet_logger():
        model.init_weights()
    return model.to(case.device).train()


def build_slim_head(case: Case, contender: str) -> nn.Module:
    """The head alone, with narrow towers: for its loss and post-processing."""
    register_all_modules(init_default_scope=True)
    config = detector_config(case, contender)
    head = config.bbox_head
    head.update(train_cfg=config.train_cfg, test_cfg=config.test_cfg)
    if case.detector == 'retinanet':
        head.update(
            in_channels=SLIM_CHANNELS, feat_channels=SLIM_CHANNELS, stacked_convs=1
        )
    else:
        head.in_channels = (SLIM_CHANNELS,) * len(head.in_channels)
    torch.manual_seed(0)
    return MODELS.build(head).to(case.device).train()
