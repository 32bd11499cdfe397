# Tables 1-3, and 4 at 500: short side 500, long side at most 833 pixels.
_base_ = './retinanet_paper.py'
_load = dict(type='LoadImageFromFile', backend_args=None)
_annotations = dict(type='LoadAnnotations', with_bbox=True)
_resize = dict(type='Resize', scale=(833, 500), keep_ratio=True)
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
