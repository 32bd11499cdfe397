# RetinaNet R-50, short side 800. Table 4: 35.7 AP.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', './_base_/paper.py']
