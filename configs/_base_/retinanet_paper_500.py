# Tables 1-3 and 4 (left): short side 500, long side at most 833 pixels.
_base_ = './retinanet_paper.py'
_resize = dict(type='Resize', scale=(833, 500), keep_ratio=True)
_load = dict(type='LoadImageFromFile', backend_args=None)
_annotations = dict(type='LoadAnnotations', with_bbox=True)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            _load,
            _annotations,
            _resize,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
_test_pipeline = [
    _load,
    _resize,
    _annotations,
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
val_dataloader = dict(dataset=dict(pipeline=_test_pipeline))
test_dataloader = val_dataloader
