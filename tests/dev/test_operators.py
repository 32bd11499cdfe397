"""The comparison of detectors with and without compiled operators."""

import sys
from types import ModuleType

import torch

from tools.dev import operators


def test_operators_are_swapped_and_restored():
    nms = sys.modules['mmcv.ops.nms']
    before, other = nms.ext_module, ModuleType('other')
    with operators.operators(other):
        assert nms.ext_module is other
        assert sys.modules['mmcv.ops.roi_align'].ext_module is other
    assert nms.ext_module is before


def test_difference_is_relative_to_the_norm_and_infinite_for_other_shapes():
    first = {'loss': torch.tensor([0.0, 4.0])}
    assert operators.difference(first, {'loss': torch.tensor([0.0, 3.0])}) == 0.25
    assert operators.difference(first, first) == 0
    for other in ({}, {'loss': torch.ones(3)}):
        assert operators.difference(first, other) == float('inf')


def test_built_detector_keeps_every_score_and_loads_no_weights():
    model = operators.build(operators.DETECTORS['RetinaNet'])
    assert model.test_cfg.score_thr == 0
    assert 'Pretrained' not in str(model.backbone.init_cfg)
