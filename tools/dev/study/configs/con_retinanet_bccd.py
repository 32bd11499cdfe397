# The study's consistent row as a config of its own, for tools/analyze.py and test.py.
_base_ = './retinanet_bccd.py'
model = dict(bbox_head=dict(type='ConsistentRetinaHead', cls_normalizer='stage'))
