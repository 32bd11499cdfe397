# For a GPU, in mixed precision: blood cells at their own size, and a backbone with
# ImageNet weights that trains.
_base_ = ['./_base_bccd.py', './_base_retinanet_lite.py']
model = dict(
    backbone=dict(type='EfficientNetLite'),
    neck=dict(out_channels=128, num_outs=5),
    bbox_head=dict(
        num_classes=3,
        in_channels=128,
        feat_channels=128,
        stacked_convs=4,
        # Cells and platelets are 40 to 240 pixels here.
        anchor_generator=dict(octave_base_scale=4, strides=[8, 16, 32, 64, 128]),
    ),
)
_cached = dict(
    type='CachedTransforms',
    transforms=[
        dict(type='LoadImageFromFile', backend_args=None),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(640, 480), keep_ratio=False),
    ],
)
_meta = ('img_id', 'ori_shape', 'img_shape', 'scale_factor')
train_pipeline = [
    _cached,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=_meta),
]
test_pipeline = [_cached, dict(type='PackDetInputs', meta_keys=_meta)]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

pretraining_epochs = 0
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
