# The same, with the head that we recommend.
_base_ = './retinanet_on_bccd.py'
model = dict(
    bbox_head=dict(
        type='ConsistentRetinaHead',
        additions=[dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')],
    )
)
