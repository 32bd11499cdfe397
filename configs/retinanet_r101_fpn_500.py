# RetinaNet R-101, short side 500. Table 4: 34.4 AP.
_base_ = './_base_/retinanet_paper_500.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    )
)
