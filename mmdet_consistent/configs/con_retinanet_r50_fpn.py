"""configs/con_retinanet_r50_fpn.py in pure-Python style, written out.

Made by `python tools/pure_configs.py`: edit configs/con_retinanet_r50_fpn.py.
"""

from mmdet_consistent.evaluation.coco_iou_metric import CocoIoUMetric
from mmdet_consistent.heads.retina_head import ConsistentRetinaHead

_coco = dict(ann_file='data/coco/annotations/instances_val2017.json', metric='bbox')
auto_scale_lr = dict(base_batch_size=8, enable=False)
backend_args = None
data_root = 'data/coco/'
dataset_type = 'CocoDataset'
default_hooks = dict(
    checkpoint=dict(interval=1, type='CheckpointHook'),
    logger=dict(interval=50, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(type='DetVisualizationHook'),
)
default_scope = 'mmdet'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
)
img_scales = [(1333, 800), (666, 400), (2000, 1200)]
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=True, type='LogProcessor', window_size=50)
model = dict(
    backbone=dict(
        depth=50,
        frozen_stages=1,
        init_cfg=dict(checkpoint='torchvision://resnet50', type='Pretrained'),
        norm_cfg=dict(requires_grad=True, type='BN'),
        norm_eval=True,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        style='pytorch',
        type='ResNet',
    ),
    bbox_head=dict(
        anchor_generator=dict(
            octave_base_scale=4,
            ratios=[0.5, 1.0, 2.0],
            scales_per_octave=3,
            strides=[8, 16, 32, 64, 128],
            type='AnchorGenerator',
        ),
        bbox_coder=dict(
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
            type='DeltaXYWHBBoxCoder',
        ),
        feat_channels=256,
        in_channels=256,
        loss_bbox=dict(beta=0.11, loss_weight=1.0, type='SmoothL1Loss'),
        loss_cls=dict(
            alpha=0.25, gamma=2.0, loss_weight=1.0, type='FocalLoss', use_sigmoid=True
        ),
        num_classes=80,
        stacked_convs=4,
        type=ConsistentRetinaHead,
    ),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[123.675, 116.28, 103.53],
        pad_size_divisor=32,
        std=[58.395, 57.12, 57.375],
        type='DetDataPreprocessor',
    ),
    neck=dict(
        add_extra_convs='on_input',
        in_channels=[256, 512, 1024, 2048],
        num_outs=5,
        out_channels=256,
        start_level=1,
        type='FPN',
    ),
    test_cfg=dict(
        max_per_img=100,
        min_bbox_size=0,
        nms=dict(iou_threshold=0.5, type='nms'),
        nms_pre=1000,
        score_thr=0.05,
    ),
    train_cfg=dict(
        allowed_border=-1,
        assigner=dict(
            ignore_iof_thr=-1,
            min_pos_iou=0,
            neg_iou_thr=0.4,
            pos_iou_thr=0.5,
            type='MaxIoUAssigner',
        ),
        debug=False,
        pos_weight=-1,
        sampler=dict(type='PseudoSampler'),
    ),
    type='RetinaNet',
)
optim_wrapper = dict(
    optimizer=dict(lr=0.005, momentum=0.9, type='SGD', weight_decay=0.0001),
    type='OptimWrapper',
)
param_scheduler = [
    dict(begin=0, by_epoch=False, end=500, start_factor=0.001, type='LinearLR'),
    dict(
        begin=0,
        by_epoch=True,
        end=12,
        gamma=0.1,
        milestones=[8, 11],
        type='MultiStepLR',
    ),
]
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        ann_file='annotations/instances_val2017.json',
        backend_args=None,
        data_prefix=dict(img='val2017/'),
        data_root='data/coco/',
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(1333, 800), type='Resize'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs',
            ),
        ],
        test_mode=True,
        type='CocoDataset',
    ),
    drop_last=False,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
test_evaluator = [
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        metric='bbox',
        type='CocoMetric',
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.6],
        metric='bbox',
        prefix='coco60',
        type=CocoIoUMetric,
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.7],
        metric='bbox',
        prefix='coco70',
        type=CocoIoUMetric,
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.8],
        metric='bbox',
        prefix='coco80',
        type=CocoIoUMetric,
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.9],
        metric='bbox',
        prefix='coco90',
        type=CocoIoUMetric,
    ),
]
test_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(keep_ratio=True, scale=(1333, 800), type='Resize'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        type='PackDetInputs',
    ),
]
train_cfg = dict(max_epochs=12, type='EpochBasedTrainLoop', val_interval=1)
train_dataloader = dict(
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    batch_size=2,
    dataset=dict(
        ann_file='annotations/instances_train2017.json',
        backend_args=None,
        data_prefix=dict(img='train2017/'),
        data_root='data/coco/',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(keep_ratio=True, scale=(1333, 800), type='Resize'),
            dict(prob=0.5, type='RandomFlip'),
            dict(type='PackDetInputs'),
        ],
        type='CocoDataset',
    ),
    num_workers=2,
    persistent_workers=True,
    sampler=dict(shuffle=True, type='DefaultSampler'),
)
train_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(keep_ratio=True, scale=(1333, 800), type='Resize'),
    dict(prob=0.5, type='RandomFlip'),
    dict(type='PackDetInputs'),
]
tta_model = dict(
    tta_cfg=dict(max_per_img=100, nms=dict(iou_threshold=0.5, type='nms')),
    type='DetTTAModel',
)
tta_pipeline = [
    dict(backend_args=None, type='LoadImageFromFile'),
    dict(
        transforms=[
            [
                dict(keep_ratio=True, scale=(1333, 800), type='Resize'),
                dict(keep_ratio=True, scale=(666, 400), type='Resize'),
                dict(keep_ratio=True, scale=(2000, 1200), type='Resize'),
            ],
            [dict(prob=1.0, type='RandomFlip'), dict(prob=0.0, type='RandomFlip')],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    meta_keys=(
                        'img_id',
                        'img_path',
                        'ori_shape',
                        'img_shape',
                        'scale_factor',
                        'flip',
                        'flip_direction',
                    ),
                    type='PackDetInputs',
                )
            ],
        ],
        type='TestTimeAug',
    ),
]
val_cfg = dict(type='ValLoop')
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        ann_file='annotations/instances_val2017.json',
        backend_args=None,
        data_prefix=dict(img='val2017/'),
        data_root='data/coco/',
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(1333, 800), type='Resize'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs',
            ),
        ],
        test_mode=True,
        type='CocoDataset',
    ),
    drop_last=False,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
val_evaluator = [
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        metric='bbox',
        type='CocoMetric',
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.6],
        metric='bbox',
        prefix='coco60',
        type=CocoIoUMetric,
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.7],
        metric='bbox',
        prefix='coco70',
        type=CocoIoUMetric,
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.8],
        metric='bbox',
        prefix='coco80',
        type=CocoIoUMetric,
    ),
    dict(
        ann_file='data/coco/annotations/instances_val2017.json',
        iou_thrs=[0.9],
        metric='bbox',
        prefix='coco90',
        type=CocoIoUMetric,
    ),
]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    name='visualizer',
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)
