# Table 3 (2, 1): labels of the refined anchors too, but no second regression. 33.3 AP.
_base_ = '../con_retinanet_r50_fpn_500.py'
model = dict(bbox_head=dict(label_stages=2, reg_stages=1))
