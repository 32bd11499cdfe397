# Table 1, + Gated Cascade: as cascade, and the second stage also sees the first
# stage's features through a gate (Figure 4c). 33.6 AP.
_base_ = '../con_retinanet_r50_fpn_500.py'
model = dict(bbox_head=dict(variant='gated_cascade'))
