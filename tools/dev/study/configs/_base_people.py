# Crowded photos of COCO with people, in 12 coarse classes.
_base_ = ['./_base_photos.py']
classes = (
    *('person', 'vehicle', 'outdoor', 'animal', 'accessory', 'sports'),
    *('kitchen', 'food', 'furniture', 'electronic', 'appliance', 'indoor'),
)
data_root = 'data/coco_people/'
_dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(dataset=dict(ann_file='train.json', **_dataset))
val_dataloader = dict(dataset=dict(ann_file='val.json', **_dataset))
test_dataloader = dict(dataset=dict(ann_file='test.json', **_dataset))
pretraining_epochs = 3
max_epochs = 4
