# Crowded photos of COCO with people; the people alone.
_base_ = ['./_base_people.py']
classes = ('person',)
_dataset = dict(metainfo=dict(classes=classes))
train_dataloader = dict(dataset=_dataset)
val_dataloader = dict(dataset=_dataset)
test_dataloader = dict(dataset=_dataset)
