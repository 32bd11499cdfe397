# ConRetinaNet R-101, short side 800. Table 4: 38.7 AP.
_base_ = './retinanet_r101_fpn.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentRetinaHead'))
