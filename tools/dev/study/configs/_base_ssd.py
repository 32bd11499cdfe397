# SSD on the first three stages of a narrow ResNet-18; anchors of 16 to 170 pixels.
_base_ = ['mmdet::_base_/models/ssd300.py']
_channels = (32, 64, 64, 64)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], pad_size_divisor=64),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
    ),
    neck=dict(
        in_channels=_channels[:2],
        out_channels=_channels,
        level_strides=(2, 2),
        level_paddings=(1, 1),
        l2_norm_scale=None,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        in_channels=_channels,
        anchor_generator=dict(
            _delete_=True,
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=256,
            strides=[8, 16, 32, 64],
            min_sizes=[16, 32, 64, 110],
            max_sizes=[32, 64, 110, 170],
            ratios=[[2], [2, 3], [2, 3], [2]],
        ),
    ),
)
