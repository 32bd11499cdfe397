"""configs/con_retinanet_r101_fpn.py in pure-Python style."""

from mmengine.config import read_base

with read_base():
    from .con_retinanet_r50_fpn import *

model.merge(
    dict(
        backbone=dict(
            depth=101,
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
        )
    )
)
