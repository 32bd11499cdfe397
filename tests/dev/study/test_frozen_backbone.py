"""The frozen backbone of the photos, whose features are kept."""

import pytest
import torch

from mmdet_consistent import EfficientNetLite
from tools.dev.study.frozen_backbone import CachedEfficientNetLite


@pytest.fixture
def backbone(monkeypatch):
    monkeypatch.setattr(CachedEfficientNetLite, 'features', {})
    torch.manual_seed(0)
    return CachedEfficientNetLite(out_indices=(1, 3)).train()


def test_features_are_those_of_the_backbone_and_computed_once(backbone, monkeypatch):
    plain = EfficientNetLite(out_indices=(1, 3)).eval()
    plain.load_state_dict(backbone.state_dict())
    images = torch.randn(3, 3, 32, 32)
    first = backbone(images[:2])
    for ours, theirs in zip(first, plain(images[:2])):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad
    assert len(backbone.features) == 2
    monkeypatch.setattr(backbone.layers[0], 'forward', None)  # not called any more
    again = backbone(images[[1, 0]])
    for ours, theirs in zip(again, first):
        assert torch.equal(ours, theirs[[1, 0]])


def test_frozen_backbone_never_trains(backbone):
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
