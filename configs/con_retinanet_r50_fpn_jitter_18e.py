# ConRetinaNet R-50, scale jitter, 1.5x schedule. Table 6: 37.3 AP on test-dev.
_base_ = './retinanet_r50_fpn_jitter_18e.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(bbox_head=dict(type='ConsistentRetinaHead'))
