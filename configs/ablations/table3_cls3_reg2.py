# Table 3 (3, 2): a third label set, of the twice refined anchors. 33.6 AP.
_base_ = '../con_retinanet_r50_fpn_500.py'
model = dict(
    bbox_head=dict(
        label_stages=3,
        reg_stages=2,
        stage_assigners=[
            dict(type='SecondPassAssigner', pos_iou_thr=0.6, neg_iou_thr=0.5),
            dict(type='SecondPassAssigner', pos_iou_thr=0.7, neg_iou_thr=0.6),
        ],
    )
)
