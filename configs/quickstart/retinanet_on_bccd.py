# The quickstart's baseline, trained on.
_base_ = './pretrained_bccd.py'
load_from = 'data/weights/retinanet_lite0_bccd.pth'
model = dict(backbone=dict(init_cfg=None))
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
