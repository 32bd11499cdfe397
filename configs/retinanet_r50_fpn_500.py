# RetinaNet R-50, short side 500. Table 4: 32.5 AP.
_base_ = './_base_/retinanet_paper_500.py'
