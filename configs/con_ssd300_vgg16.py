# ConSSD300 VGG-16; not in the paper.
_base_ = './ssd300_vgg16.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentSSDHead'))
