# Fish, penguins and five more classes in two public aquariums, often in schools.
_base_ = ['./_base_photos.py']
classes = (
    *('fish', 'jellyfish', 'penguin', 'puffin'),
    *('shark', 'starfish', 'stingray'),
)
data_root = 'data/aquarium/'
_dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(dataset=dict(ann_file='train.json', **_dataset))
val_dataloader = dict(dataset=dict(ann_file='val.json', **_dataset))
test_dataloader = dict(dataset=dict(ann_file='test.json', **_dataset))
pretraining_epochs = 6
max_epochs = 8
