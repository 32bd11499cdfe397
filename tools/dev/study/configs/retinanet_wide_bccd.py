# Twice the channels from the FPN on, and RetinaNet's own four convolutions per tower,
# to see whether the small head limits the result.
_base_ = './retinanet_bccd.py'
model = dict(
    neck=dict(out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=4,
        init_cfg=dict(std=0.02),
    ),
)
