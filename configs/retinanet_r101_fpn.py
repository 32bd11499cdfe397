# RetinaNet R-101, short side 800. Table 4: 37.8 AP.
_base_ = ['mmdet::retinanet/retinanet_r101_fpn_1x_coco.py', './_base_/paper.py']
