"""The contenders' heads, in mmdet's own detectors."""

import contextlib
import copy
import functools
import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.analysis import get_model_complexity_info
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from torch import nn

import mmdet_consistent.additions

from .cases import ADDITIONS, HEADS, OURS, Case, Contender, contenders_of

with contextlib.suppress(ImportError):  # not in older revisions of the package
    import mmdet_consistent.engine.safe  # noqa: F401  lets mmdet's SSD predict

HEAD_TYPES = {'retinanet': 'ConsistentRetinaHead', 'ssd': 'ConsistentSSDHead'}
# Neither loss nor post-processing depends on the towers: narrow ones cost less.
SLIM_CHANNELS = 8
# Side in pixels for counting operations. Counting runs the network, so it is small;
# the share of a contender's own layers is the same at every size.
COST_SIDES = dict(retinanet=320, ssd=300)


class Cost(NamedTuple):
    """Parameters of a contender, and multiply-adds for one image."""

    detector: str
    contender: str
    parameters: int
    flops: int


@functools.cache
def _base_config(path: str) -> ConfigDict:
    return get_config(path).model


def detector_config(case: Case, contender: Contender) -> ConfigDict:
    """Return the detector's model config, untrained (no file is downloaded)."""
    if case.detector == 'retinanet':
        path = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    else:
        side = 300 if max(case.height, case.width) <= 300 else 512
        path = f'mmdet::ssd/ssd{side}_coco.py'
    config = copy.deepcopy(_base_config(path))
    config.backbone.init_cfg = None
    config.bbox_head.num_classes = case.classes
    options = HEADS[contender.head]
    if options is not None:
        config.bbox_head.update(options, type=HEAD_TYPES[case.detector])
        if contender.head == OURS:
            config.bbox_head.update(label_stages=case.stages, reg_stages=case.stages)
    return config


@contextlib.contextmanager
def quiet_logger() -> Iterator[None]:
    """Keep mmengine from logging how every parameter is initialised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def build_detector(case: Case, contender: Contender) -> nn.Module:
    """Build the whole detector on the case's device, in training mode."""
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(detector_config(case, contender))
    with quiet_logger():
        model.init_weights()
    return model.to(case.device).train()


def build_slim_head(case: Case, contender: Contender) -> nn.Module:
    """Build the head alone, with narrow towers."""
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


def model_cost(detector: str, name: str) -> Cost:
    """Count a detector's parameters and multiply-adds, post-processing excluded."""
    side = COST_SIDES[detector]
    case = Case(detector=detector, height=side, width=side)
    model = build_detector(case, Contender.parse(name)).eval()
    model.forward = model._forward
    image = torch.zeros(1, 3, side, side)
    with torch.no_grad(), quiet_logger():
        found = get_model_complexity_info(
            model, inputs=image, show_table=False, show_arch=False
        )
    return Cost(detector, name, found['params'], found['flops'])


def all_costs() -> list[Cost]:
    """Return the cost of every contender of both detectors, mmdet's first."""
    return [
        model_cost(detector, name)
        for detector in COST_SIDES
        for name in (*contenders_of(detector), *ADDITIONS)
    ]
