# The same as shapes_text.py, in mmengine's pure-Python style.
from mmengine.config import read_base

with read_base():
    from mmdet_consistent.configs.con_retinanet_r50_fpn import *

model.merge(
    dict(
        backbone=dict(
            depth=18, base_channels=16, frozen_stages=-1, norm_eval=False, init_cfg=None
        ),
        neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
        bbox_head=dict(
            num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1
        ),
    )
)

metainfo = dict(classes=('disc', 'square'))
load = dict(type='LoadImageFromFile')
annotations = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
train_pipeline = [
    load,
    annotations,
    resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    load,
    resize,
    annotations,
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader.merge(
    dict(
        batch_size=8,
        num_workers=0,
        persistent_workers=False,
        dataset=dict(
            data_root='data/',
            metainfo=metainfo,
            ann_file='train.json',
            data_prefix=dict(img='train/'),
            pipeline=train_pipeline,
        ),
    )
)
val_dataloader.merge(
    dict(
        num_workers=0,
        persistent_workers=False,
        dataset=dict(
            data_root='data/',
            metainfo=metainfo,
            ann_file='val.json',
            data_prefix=dict(img='val/'),
            pipeline=test_pipeline,
        ),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file='data/val.json', metric='bbox')
test_evaluator = val_evaluator
default_hooks.merge(dict(logger=dict(interval=8), checkpoint=dict(interval=20)))
train_cfg.merge(dict(max_epochs=20, val_interval=20))
param_scheduler = []
optim_wrapper.merge(dict(clip_grad=dict(max_norm=10.0)))
optim_wrapper.optimizer = dict(type='AdamW', lr=1e-3)
