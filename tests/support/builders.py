import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

from mmdet_consistent import config_path

register_all_modules(init_default_scope=True)

IMAGE = 128
HEAD = dict(
    num_classes=3,
    in_channels=8,
    feat_channels=8,
    stacked_convs=1,
    anchor_generator=dict(
        type='AnchorGenerator',
        octave_base_scale=4,
        scales_per_octave=1,
        ratios=[0.5, 1.0],
        strides=[16, 32, 64],
    ),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    loss_cls=dict(
        type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
    ),
    loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1,
        ),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.0,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
    ),
)

SAMPLING = dict(
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
    train_cfg=dict(
        sampler=dict(
            type='RandomSampler',
            num=32,
            pos_fraction=0.5,
            neg_pos_ub=-1,
            add_gt_as_proposals=False,
        )
    ),
)


def build_head(type='ConsistentRetinaHead', seed=0, **options):
    config = copy.deepcopy(HEAD)
    for key, value in options.items():
        if isinstance(value, dict) and key == 'train_cfg':
            config['train_cfg'].update(value)
        else:
            config[key] = value
    torch.manual_seed(seed)
    head = MODELS.build(ConfigDict(type=type, **config))
    for name, parameter in sorted(head.named_parameters()):
        if 'later_stages' not in name:
            torch.manual_seed(len(name))
            torch.nn.init.normal_(parameter, std=0.05)
    return head


def features(num_images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(num_images, 8, size, size, generator=generator)
        for size in (IMAGE // 16, IMAGE // 32, IMAGE // 64)
    ]


def metas(num_images=2):
    return [
        dict(
            img_shape=(IMAGE, IMAGE),
            pad_shape=(IMAGE, IMAGE),
            ori_shape=(IMAGE, IMAGE),
            scale_factor=(1.0, 1.0),
        )
        for _ in range(num_images)
    ]


def instances(boxes, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )


def ground_truth():
    return [
        instances([[10, 10, 70, 80], [50, 40, 120, 110], [5, 60, 60, 120]], [0, 1, 2]),
        instances([], []),
    ]


def as_scalars(losses):
    return {
        key: sum(value) if isinstance(value, list) else value
        for key, value in losses.items()
    }


def total_loss(losses):
    """The sum that training minimises; a loss may be a list of tensors."""
    return sum(
        part.sum()
        for name, value in losses.items()
        if 'loss' in name
        for part in (value if isinstance(value, (list, tuple)) else [value])
    )


def losses_of(head):
    """Its losses on the usual features and ground truth."""
    return as_scalars(head.loss_by_feat(*head(features()), ground_truth(), metas()))


def assert_refused(words, build, **options):
    """Building it fails, and the message has all of these words; ^: at its start."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build(**options)
    message = str(error.value).split('.py: ', 1)[-1]  # mmengine < 0.8 says where
    for word in words:
        assert word in f'^{message}'


def small_detector(**head_options):
    """A ConRetinaNet of a few channels for inference."""
    model = Config.fromfile(config_path('retinanet_r50_fpn.py')).model
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    for name in head_options:
        model.bbox_head.pop(name, None)  # update() would merge
    model.bbox_head.update(
        type='ConsistentRetinaHead',
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        **head_options,
    )
    return MODELS.build(model).eval()
