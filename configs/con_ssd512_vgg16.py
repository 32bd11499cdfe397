# ConSSD512 VGG-16. Table 5: 30.5 AP.
_base_ = './ssd512_vgg16.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentSSDHead'))
