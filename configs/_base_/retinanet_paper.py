# The paper's setting: Detectron's RetinaNet schedule at 4 GPUs x 2 images
# (lr 0.01 for 16 images there, so 0.005 here), horizontal flip only.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_consistent'])
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=8)

# AP90 beside mmdet's own figures: the paper's Tables 2 and 3.
_ann_file = 'data/coco/annotations/instances_val2017.json'
val_evaluator = [
    dict(type='CocoMetric', ann_file=_ann_file, metric='bbox'),
    dict(
        type='CocoIoUMetric',
        ann_file=_ann_file,
        metric='bbox',
        iou_thrs=[0.9],
        prefix='coco90',
    ),
]
test_evaluator = val_evaluator
