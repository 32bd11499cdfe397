# Table 6: Detectron's scale jitter (one of six short sides an image, 640 to 800)
# and 1.5 times the schedule (its 90k, 60k and 80k steps become 135k, 90k and 120k).
_base_ = './retinanet_paper.py'
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, s) for s in (640, 672, 704, 736, 768, 800)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=18)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=18, milestones=[12, 16]),
]

# The table's figures are test-dev's, whose annotations are not public: a test
# writes the file for COCO's server; training validates on val2017.
_test_dev = 'annotations/image_info_test-dev2017.json'
test_dataloader = dict(
    dataset=dict(ann_file=_test_dev, data_prefix=dict(img='test2017/'))
)
test_evaluator = dict(
    _delete_=True,
    type='CocoMetric',
    ann_file='data/coco/' + _test_dev,
    metric='bbox',
    format_only=True,
    outfile_prefix='work_dirs/test-dev',
)
