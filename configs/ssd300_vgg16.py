# SSD300 VGG-16 as mmdet has it; not in the paper.
_base_ = 'mmdet::ssd/ssd300_coco.py'
custom_imports = dict(imports=['mmdet_consistent'])
