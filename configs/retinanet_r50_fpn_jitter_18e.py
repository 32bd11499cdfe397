# RetinaNet R-50, scale jitter, 1.5x schedule: the baseline that Table 6 leaves out.
_base_ = './_base_/retinanet_paper_jitter_18e.py'
