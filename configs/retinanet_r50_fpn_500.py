# RetinaNet R-50, short side 500. Table 4: 32.5 AP.
_base_ = ['./retinanet_r50_fpn.py', './_base_/short_side_500.py']
