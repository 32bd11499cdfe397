# The GPU check without a GPU: the same, tiny, and without mixed precision and weights.
_base_ = './retinanet_gpu_bccd.py'
model = dict(
    backbone=dict(init_cfg=None),
    neck=dict(out_channels=32),
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1),
)
_cached = dict(
    type='CachedTransforms',
    transforms=[
        dict(type='LoadImageFromFile', backend_args=None),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(128, 96), keep_ratio=False),
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
train_dataloader = dict(batch_size=2, dataset=dict(indices=4, pipeline=_train))
val_dataloader = dict(dataset=dict(indices=2, pipeline=_test))
test_dataloader = dict(dataset=dict(indices=2, pipeline=_test))
max_epochs = 1
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(type='OptimWrapper')
