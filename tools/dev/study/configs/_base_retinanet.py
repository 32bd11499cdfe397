# A RetinaNet small enough to train from scratch in minutes on one CPU core.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']
model = dict(
    backbone=dict(
        depth=18, base_channels=16, frozen_stages=-1, norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32, num_outs=4),
    bbox_head=dict(
        in_channels=32,
        feat_channels=32,
        stacked_convs=2,
        # Cells and platelets are 16 to 100 pixels here.
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32, 64]),
        # RetinaNet's 0.01 is made for 256 channels: with 32 the signal would vanish.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.03,
            override=dict(type='Normal', name='retina_cls', std=0.01, bias_prob=0.01),
        ),
    ),
)
