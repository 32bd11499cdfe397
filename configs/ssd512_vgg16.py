# SSD512 VGG-16. Table 5: 28.9 AP.
# The paper says nothing of SSD's training: schedule (64 images a batch, 120 passes
# over the data) and augmentation are mmdet's. ImageNet weights are torchvision's, which
# expect images divided by std; mmdet's come from a host that is reported expired.
_base_ = 'mmdet::ssd/ssd512_coco.py'
custom_imports = dict(imports=['mmdet_consistent'])
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(init_cfg=dict(checkpoint='torchvision-ssd://vgg16')),
)
