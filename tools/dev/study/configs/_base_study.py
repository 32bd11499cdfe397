# Shared by all models and data of the study: images in memory, training from scratch,
# and a schedule short enough for one CPU core.
custom_imports = dict(imports=['mmdet_consistent', 'tools.dev.study.cached_transforms'])
default_scope = 'mmdet'

_cached = dict(
    type='CachedTransforms',
    transforms=[
        dict(type='LoadImageFromFile', backend_args=None),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(256, 192), keep_ratio=False),
    ],
)
_meta = ('img_id', 'ori_shape', 'img_shape', 'scale_factor')
train_pipeline = [
    _cached,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs', meta_keys=_meta),
]
test_pipeline = [_cached, dict(type='PackDetInputs', meta_keys=_meta)]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

# Every row of a seed starts from the same baseline, trained for pretraining_epochs by
# the same schedule, and trains for max_epochs. With 0, rows start from scratch.
pretraining_epochs = 12
max_epochs = 8
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
