# Table 2: refined anchors are positive from IoU 0.7, negative below 0.6. 33.6 AP.
_base_ = '../con_retinanet_r50_fpn_500.py'
model = dict(
    bbox_head=dict(
        stage_assigners=[
            dict(type='SecondPassAssigner', pos_iou_thr=0.7, neg_iou_thr=0.6)
        ]
    )
)
