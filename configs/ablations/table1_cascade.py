# Table 1, + Cascade: the second stage has towers and outputs of its own
# (Figure 4b). 33.4 AP.
_base_ = '../con_retinanet_r50_fpn_500.py'
model = dict(bbox_head=dict(variant='cascade'))
