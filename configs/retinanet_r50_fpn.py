# RetinaNet R-50, short side 800. Table 4: 35.7 AP.
_base_ = './_base_/retinanet_paper.py'
