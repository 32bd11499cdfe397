# RetinaNet R-101, short side 500. Table 4: 34.4 AP.
_base_ = ['./retinanet_r101_fpn.py', './_base_/short_side_500.py']
