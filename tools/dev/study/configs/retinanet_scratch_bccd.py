# No pretraining: the second labels are made from boxes that are still poor.
_base_ = './retinanet_bccd.py'
pretraining_epochs = 0
max_epochs = 12
