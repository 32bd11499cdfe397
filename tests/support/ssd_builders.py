"""A small SSD head and inputs for it."""

import copy

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from tests.support.builders import IMAGE

CHANNELS = (8, 12, 8)
STRIDES = (16, 32, 64)
HEAD = dict(
    num_classes=3,
    in_channels=CHANNELS,
    anchor_generator=dict(
        type='SSDAnchorGenerator',
        scale_major=False,
        min_sizes=[24, 48, 80],
        max_sizes=[48, 80, 120],
        strides=list(STRIDES),
        ratios=[[2], [2, 3], [2]],
    ),
    bbox_coder=dict(
        type='DeltaXYWHBBoxCoder',
        target_means=[0.0, 0.0, 0.0, 0.0],
        target_stds=[0.1, 0.1, 0.2, 0.2],
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        nms=dict(type='nms', iou_threshold=0.45),
        min_bbox_size=0,
        score_thr=0.02,
        max_per_img=200,
    ),
)


def build_ssd_head(type='ConsistentSSDHead', **options):
    config = copy.deepcopy(HEAD)
    config['train_cfg'].update(options.pop('train_cfg', {}))
    config.update(options)
    head = MODELS.build(ConfigDict(type=type, **config))
    for name, parameter in sorted(head.named_parameters()):
        if 'later' not in name:
            torch.manual_seed(len(name))
            torch.nn.init.normal_(parameter, std=0.05)
    return head


def ssd_features(num_images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(num_images, c, IMAGE // s, IMAGE // s, generator=generator)
        for c, s in zip(CHANNELS, STRIDES)
    ]
