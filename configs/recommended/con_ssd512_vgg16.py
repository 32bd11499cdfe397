# The same additions for ConSSD. Measured in small models, not run on COCO.
_base_ = '../con_ssd512_vgg16.py'
model = dict(
    bbox_head=dict(
        additions=[dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')]
    )
)
