# SSD512 VGG-16. Table 5: 28.9 AP.
# The paper says nothing of SSD's training: schedule (64 images a batch, 120 passes
# over the data), augmentation and ImageNet weights are mmdet's.
_base_ = 'mmdet::ssd/ssd512_coco.py'
custom_imports = dict(imports=['mmdet_consistent'])
