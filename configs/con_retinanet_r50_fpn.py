# ConRetinaNet R-50, short side 800. Table 4: 36.4 AP.
_base_ = './retinanet_r50_fpn.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentRetinaHead'))
