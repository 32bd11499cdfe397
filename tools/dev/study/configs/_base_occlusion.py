# The synthetic occlusion set; tools/dev/study builds it if it is missing.
_base_ = ['./_base_study.py']

classes = ('disc', 'box', 'triangle', 'cross')
data_root = 'work_dirs/data/occlusion/'
_dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    dataset=dict(
        **_dataset,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
    )
)
val_dataloader = dict(
    dataset=dict(
        **_dataset,
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/val/'),
    )
)
test_dataloader = dict(
    dataset=dict(
        **_dataset,
        ann_file='annotations/test.json',
        data_prefix=dict(img='images/test/'),
    )
)
