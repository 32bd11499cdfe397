# RetinaNet R-101, short side 800. Table 4: 37.8 AP.
_base_ = './_base_/retinanet_paper.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    )
)
