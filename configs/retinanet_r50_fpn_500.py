# RetinaNet R-50, short side 500: the baseline of the ablations.
# Table 1, Table 3 (1, 1), Table 4: 32.5 AP.
_base_ = './_base_/retinanet_paper_500.py'
