# The paper's setting: Detectron's RetinaNet schedule at 4 GPUs x 2 images
# (lr 0.01 for 16 images there, so 0.005 here), horizontal flip only.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_consistent'])
# Detectron's box loss; mmdet's RetinaNet has L1. A second stage's small residuals
# lie in the quadratic part.
model = dict(
    bbox_head=dict(
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=0.11, loss_weight=1.0)
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=8)

# Beside mmdet's own figures, AP60 to AP90: the paper's Tables 2 and 3.
_coco = dict(
    ann_file='data/coco/annotations/instances_val2017.json',
    metric='bbox',
)
val_evaluator = [
    dict(type='CocoMetric', **_coco),
    dict(type='CocoIoUMetric', iou_thrs=[0.6], prefix='coco60', **_coco),
    dict(type='CocoIoUMetric', iou_thrs=[0.7], prefix='coco70', **_coco),
    dict(type='CocoIoUMetric', iou_thrs=[0.8], prefix='coco80', **_coco),
    dict(type='CocoIoUMetric', iou_thrs=[0.9], prefix='coco90', **_coco),
]
test_evaluator = val_evaluator
