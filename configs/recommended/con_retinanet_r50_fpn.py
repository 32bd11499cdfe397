# What we recommend: the paper's ConRetinaNet with aligned features and a localisation
# confidence. Measured in small models (docs/study.md), not run on COCO.
_base_ = '../con_retinanet_r50_fpn.py'
model = dict(
    bbox_head=dict(
        additions=[dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')]
    )
)
