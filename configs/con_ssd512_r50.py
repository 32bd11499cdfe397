# ConSSD512 R-50. Table 5: 31.9 AP.
_base_ = './ssd512_r50.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentSSDHead'))
