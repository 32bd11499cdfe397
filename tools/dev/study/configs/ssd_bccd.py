_base_ = ['./_base_bccd.py', './_base_ssd.py']
model = dict(bbox_head=dict(num_classes=3))
