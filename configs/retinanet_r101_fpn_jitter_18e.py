# RetinaNet R-101, scale jitter, 1.5x schedule. Table 6: 39.1 AP on test-dev.
_base_ = './_base_/retinanet_paper_jitter_18e.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    )
)
