"""Small heads of every kind that mmdet has, from mmdet's own configs."""

import copy
import inspect
import logging
import math
from typing import Any

import torch
from mmdet.models import dense_heads
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_consistent.engine import make_safe

make_safe()  # mmdet's SSD head cannot predict without
IMAGE, CHANNELS, CLASSES = 384, 16, 3
# A config of mmdet's that has the head, and where in the model.
CONFIGS = {
    'RetinaHead': ('retinanet/retinanet_r50_fpn_1x_coco.py', 'bbox_head'),
    'SSDHead': ('ssd/ssd300_coco.py', 'bbox_head'),
    'RPNHead': ('rpn/rpn_r50_fpn_1x_coco.py', 'rpn_head'),
    'RetinaSepBNHead': (
        'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py',
        'bbox_head',
    ),
    'FreeAnchorRetinaHead': ('free_anchor/freeanchor_r50_fpn_1x_coco.py', 'bbox_head'),
    'PISARetinaHead': ('pisa/retinanet-r50_fpn_pisa_1x_coco.py', 'bbox_head'),
    'PISASSDHead': ('pisa/ssd300_pisa_coco.py', 'bbox_head'),
    'FSAFHead': ('fsaf/fsaf_r50_fpn_1x_coco.py', 'bbox_head'),
    'ATSSHead': ('atss/atss_r50_fpn_1x_coco.py', 'bbox_head'),
    'PAAHead': ('paa/paa_r50_fpn_1x_coco.py', 'bbox_head'),
    'DDODHead': ('ddod/ddod_r50_fpn_1x_coco.py', 'bbox_head'),
    'GFLHead': ('gfl/gfl_r50_fpn_1x_coco.py', 'bbox_head'),
    'YOLOFHead': ('yolof/yolof_r50-c5_8xb8-1x_coco.py', 'bbox_head'),
    'YOLACTHead': ('yolact/yolact_r50_1xb8-55e_coco.py', 'bbox_head'),
}


def heads() -> dict[str, type]:
    """All heads of mmdet's with anchors, those that are no ``AnchorHead`` last."""
    found = {
        name: member
        for name, member in inspect.getmembers(dense_heads, inspect.isclass)
        if issubclass(member, AnchorHead)
    }
    others = ('SABLRetinaHead', 'YOLOV3Head', 'CascadeRPNHead')
    found.update({name: getattr(dense_heads, name) for name in others})
    return found


def small_config(name: str) -> dict:
    """The head of mmdet's own config, for a few channels and small images."""
    if name == 'AnchorHead':
        config = small_config('RPNHead')
    else:
        path, part = CONFIGS[name]
        model = get_config(f'mmdet::{path}').model
        config = copy.deepcopy(model[part])
        train, test = model.get('train_cfg') or {}, model.get('test_cfg') or {}
        if part == 'rpn_head':
            train, test = train['rpn'], test['rpn']
        config.update(train_cfg=train, test_cfg=test)
    config.update(type=name, num_classes=1 if part_of(name) == 'rpn_head' else CLASSES)
    several = isinstance(config['in_channels'], (list, tuple))
    count = len(config['in_channels']) if several else 0
    config['in_channels'] = (CHANNELS,) * count if several else CHANNELS
    for field, value in (('feat_channels', CHANNELS), ('stacked_convs', 1)):
        if field in config:
            config[field] = value
    if 'norm_cfg' not in config and name in (
        'ATSSHead',
        'PAAHead',
        'DDODHead',
        'GFLHead',
    ):
        config['norm_cfg'] = dict(type='GN', num_groups=4, requires_grad=True)
    test = config['test_cfg']
    test['score_thr'], test['max_per_img'] = 0.0, 50
    if 'top_k' in test:
        test['top_k'] = 50
    return config


def part_of(name: str) -> str:
    """Where a config has the head; ``AnchorHead`` is tried as an RPN."""
    return CONFIGS.get(name, ('', 'rpn_head'))[1]


def build(config: dict, seed: int = 0, **options: Any) -> nn.Module:
    """Build a head; the same weights for the same seed."""
    torch.manual_seed(seed)
    head = MODELS.build(ConfigDict(copy.deepcopy(config), **options))
    logging.disable(logging.INFO)  # it says what it did to each weight
    head.init_weights()
    logging.disable(logging.NOTSET)
    for key, parameter in sorted(head.named_parameters()):
        if parameter.dim() > 1 and 'later_stages' not in key:
            torch.manual_seed(seed + len(key))
            nn.init.normal_(parameter, std=0.02)
    return head


def features(head: nn.Module) -> tuple[Tensor, ...]:
    """Features of two images."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, CHANNELS, *size, generator=generator) for size in sizes(head)
    )


def sizes(head: nn.Module) -> list[tuple[int, int]]:
    """Height and width of each level."""
    strides = head.prior_generator.strides
    return [(math.ceil(IMAGE / y), math.ceil(IMAGE / x)) for x, y in strides]


def metas() -> list[dict]:
    """Meta information of two images."""
    size = (IMAGE, IMAGE)
    shapes = ('img_shape', 'pad_shape', 'ori_shape', 'batch_input_shape')
    return [dict.fromkeys(shapes, size) | dict(scale_factor=(1.0, 1.0))] * 2


def predicted_ground_truth(base: nn.Module) -> list[InstanceData]:
    """Ground truth of two images: boxes that the untrained head predicts.

    So some refined boxes are positive, whatever the head makes of its anchors.
    """
    found = []
    for result in predictions_of(base):
        width, height = (result.bboxes[:, 2:] - result.bboxes[:, :2]).unbind(1)
        result = result[(width > 16) & (height > 16)][:4]
        result.bboxes = result.bboxes + 2  # else there were nothing to learn
        found.append(InstanceData(bboxes=result.bboxes, labels=result.labels))
    return found


def losses_of(head: nn.Module, gts: list[InstanceData]) -> dict[str, Tensor]:
    """The head's losses, one scalar each."""
    torch.manual_seed(0)  # samplers draw
    losses = head.loss_by_feat(*head(features(head)), gts, metas(), None)
    return {
        name: torch.stack(list(value)).sum()
        if isinstance(value, (list, tuple))
        else torch.as_tensor(value)
        for name, value in losses.items()
    }


def predictions_of(head: nn.Module) -> list:
    """What the head detects in two images."""
    head.eval()
    with torch.no_grad():
        outputs = head(features(head))
        found = head.predict_by_feat(*outputs, batch_img_metas=metas())
    head.train()
    return found


def build_consistent(name: str, **options: Any) -> nn.Module:
    """Build the consistent version of a head of mmdet's."""
    return build(dict(small_config(name), type=f'Consistent{name}'), **options)


def two_boxes() -> list[InstanceData]:
    """Return the same single object in each of two images."""
    box = torch.tensor([[40.0, 40, 150, 140]])
    return [InstanceData(bboxes=box, labels=torch.tensor([0]))] * 2
