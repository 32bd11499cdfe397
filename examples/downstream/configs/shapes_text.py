# A data set of one's own, mmengine's text style.
_base_ = 'mmdet_consistent::con_retinanet_r50_fpn.py'

# A small model from scratch, so that the example runs in a minute without a GPU.
# With a data set of a useful size, num_classes is the one line needed.
model = dict(
    backbone=dict(
        depth=18, base_channels=16, frozen_stages=-1, norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    bbox_head=dict(num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1),
)

_data = dict(data_root='data/', metainfo=dict(classes=('disc', 'square')))
_load = dict(type='LoadImageFromFile')
_annotations = dict(type='LoadAnnotations', with_bbox=True)
_resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
train_pipeline = [
    _load,
    _annotations,
    _resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    _load,
    _resize,
    _annotations,
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        **_data,
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        **_data,
        ann_file='val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# _delete_: the base's evaluator is a list of several.
val_evaluator = dict(
    _delete_=True, type='CocoMetric', ann_file='data/val.json', metric='bbox'
)
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=8), checkpoint=dict(interval=20))
train_cfg = dict(max_epochs=20, val_interval=20)
param_scheduler = []
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3),
    clip_grad=dict(max_norm=10.0),
)
