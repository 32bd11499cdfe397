# SSD300 VGG-16 as mmdet has it but for ImageNet weights (see ssd512_vgg16.py); not in the
# paper.
_base_ = 'mmdet::ssd/ssd300_coco.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(init_cfg=dict(checkpoint='torchvision-ssd://vgg16')),
)
