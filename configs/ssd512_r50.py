# SSD512 R-50. Table 5: 30.6 AP.
# The paper doesn't say which features R-50 gives to SSD. Here: the ends of stages
# 3 to 5 (strides 8, 16, 32) and four extra levels, so that the seven levels have
# VGG-16's strides and anchors. No L2 norm: it is there for VGG's lack of batch norm.
_base_ = './ssd512_vgg16.py'
_channels = (512, 1024, 2048, 512, 256, 256, 256)
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(
        in_channels=_channels[:3],
        out_channels=_channels,
        level_strides=(2, 2, 2, 1),
        level_paddings=(1, 1, 1, 1),
        l2_norm_scale=None,
    ),
    bbox_head=dict(in_channels=_channels),
)
