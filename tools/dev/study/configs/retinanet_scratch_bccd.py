# No pretraining: the second labels come from boxes that are still inaccurate.
_base_ = './retinanet_bccd.py'
pretraining_epochs = 0
max_epochs = 12
