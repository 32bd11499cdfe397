# Blood cells in the setting of the photos.
_base_ = ['./_base_photos.py']
classes = ('RBC', 'WBC', 'Platelets')
data_root = 'data/bccd/'
_dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(dataset=dict(ann_file='annotations/train.json', **_dataset))
val_dataloader = dict(dataset=dict(ann_file='annotations/val.json', **_dataset))
test_dataloader = dict(dataset=dict(ann_file='annotations/test.json', **_dataset))
pretraining_epochs = 8
max_epochs = 12
