# The same, trained consistently.
_base_ = './retinanet_bccd.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentRetinaHead'))
