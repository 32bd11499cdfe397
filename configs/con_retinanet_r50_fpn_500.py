# ConRetinaNet R-50, short side 500: the method as the paper settles on it.
# Table 1, Table 2 (0.6 / 0.5), Table 3 (2, 2), Table 4: 33.7 AP.
_base_ = './retinanet_r50_fpn_500.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentRetinaHead'))
