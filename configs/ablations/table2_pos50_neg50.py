# Table 2: refined anchors are positive from IoU 0.5, negative below 0.5. 33.5 AP.
_base_ = '../con_retinanet_r50_fpn_500.py'
model = dict(
    bbox_head=dict(
        stage_assigners=[
            dict(type='SecondPassAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)
        ]
    )
)
