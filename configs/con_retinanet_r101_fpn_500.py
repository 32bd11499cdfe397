# ConRetinaNet R-101, short side 500. Table 4: 35.5 AP.
_base_ = './retinanet_r101_fpn_500.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentRetinaHead'))
