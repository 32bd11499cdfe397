# Photos at 320x224 or 224x320, and a frozen backbone with ImageNet weights: its features
# are computed once, so that a step is a step of neck and head.
_base_ = ['./_base_study.py']
custom_imports = dict(
    imports=[
        'mmdet_consistent',
        'tools.dev.study.cached_transforms',
        'tools.dev.study.frozen_backbone',
    ]
)
_cached = dict(
    type='CachedTransforms',
    transforms=[
        dict(type='LoadImageFromFile', backend_args=None),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='ResizeByOrientation', scale=(320, 224)),
    ],
)
_meta = ('img_id', 'ori_shape', 'img_shape', 'scale_factor')
_train = [
    _cached,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=_meta),
]
_test = [_cached, dict(type='PackDetInputs', meta_keys=_meta)]
train_pipeline = _train
test_pipeline = _test
train_dataloader = dict(
    drop_last=False,
    batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=True),
    dataset=dict(pipeline=_train),
)
val_dataloader = dict(
    batch_size=1,
    dataset=dict(pipeline=_test),
)
test_dataloader = val_dataloader
