# A small RetinaNet from scratch on blood cells: minutes on two CPU cores.
_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py']
custom_imports = dict(imports=['mmdet_consistent'])

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        base_channels=32,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(
        num_classes=3,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # Cells and platelets are 20 to 120 pixels here.
        anchor_generator=dict(octave_base_scale=2),
        # RetinaNet's 0.01 is made for 256 channels: with 64 the signal would fade.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.02,
            override=dict(type='Normal', name='retina_cls', std=0.01, bias_prob=0.01),
        ),
    ),
)

classes = ('RBC', 'WBC', 'Platelets')
data_root = 'data/bccd/'
_pack_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
_load = dict(type='LoadImageFromFile', backend_args=None)
_annotations = dict(type='LoadAnnotations', with_bbox=True)
_resize = dict(type='Resize', scale=(320, 240), keep_ratio=True)
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
    dict(type='PackDetInputs', meta_keys=_pack_meta),
]
_dataset = dict(
    type='CocoDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        **_dataset,
        ann_file='annotations/train.json',
        filter_cfg=dict(filter_empty_gt=True, min_size=8),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_dataset,
        ann_file='annotations/val.json',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_dataset,
        ann_file='annotations/test.json',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = [
    dict(
        type='CocoMetric',
        ann_file=data_root + 'annotations/val.json',
        metric='bbox',
    ),
    dict(
        type='CocoIoUMetric',
        ann_file=data_root + 'annotations/val.json',
        metric='bbox',
        iou_thrs=[0.9],
        prefix='coco90',
    ),
]
test_evaluator = [
    dict(
        type='CocoMetric',
        ann_file=data_root + 'annotations/test.json',
        metric='bbox',
    ),
    dict(
        type='CocoIoUMetric',
        ann_file=data_root + 'annotations/test.json',
        metric='bbox',
        iou_thrs=[0.9],
        prefix='coco90',
    ),
]

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
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
randomness = dict(seed=0)
