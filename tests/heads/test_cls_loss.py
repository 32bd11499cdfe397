import pytest
import torch
from mmdet.models.losses import FocalLoss

from mmdet_consistent.heads.cls_loss import label_set_losses
from mmdet_consistent.heads.targets import StageTargets


@pytest.mark.parametrize('factor', [1.0, 37.0])
def test_label_set_losses_normalise_as_mmdet_in_float64(factor):
    """mmdet adds a small number to it, which float32 would hide."""
    torch.manual_seed(0)
    images, anchors, classes = 2, 6, 3
    logits = torch.randn(images, 2 * classes, 1, 3, dtype=torch.float64)
    rows = logits.permute(0, 2, 3, 1).reshape(-1, classes)
    targets = []
    for _ in range(2):
        labels = torch.randint(0, classes + 1, (images, anchors))
        targets.append(
            StageTargets(
                boxes=torch.zeros(1, anchors, 4),
                labels=labels,
                label_weights=torch.rand(images, anchors, dtype=torch.float64),
                positive=labels < classes,
                gt_index=torch.zeros_like(labels),
                gt_bboxes=torch.zeros(images, 1, 4),
                avg_factor=torch.tensor(1.0),
                cls_avg_factor=torch.tensor(factor, dtype=torch.float64),
            )
        )
    losses = [FocalLoss(loss_weight=weight) for weight in (1.0, 2.5)]
    actual = label_set_losses(losses, [logits], classes, targets)
    for loss, target, value in zip(losses, targets, actual):
        expected = loss(
            rows,
            target.labels.flatten(),
            target.label_weights.flatten(),
            avg_factor=target.cls_avg_factor,
        )
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
