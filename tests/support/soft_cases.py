"""What the tests of SoftLabels and QualityTargets share."""

import torch
from hypothesis import strategies as st

from mmdet_consistent.export.deployable import DeployableDetector
from tests.reference.soft_consistency import label_losses
from tests.support.builders import (
    as_scalars,
    ground_truth,
    instances,
    metas,
    small_detector,
    total_loss,
)
from tests.support.naive import SIZES, STRIDES, gradients, rows

QUALITY = dict(
    loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)
)
FOCAL = dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True))
NOTHING = [instances([], []), instances([], [])]
# Stage 0 by the same simple rule as the others, so that one reference does for all.
SIMPLE = dict(
    assigner=dict(
        type='MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.4,
        match_low_quality=False,
        ignore_iof_thr=-1,
    )
)
BOX = st.tuples(
    st.floats(-10, 80), st.floats(-10, 80), st.floats(12, 100), st.floats(12, 100)
).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
GROUND_TRUTHS = st.lists(st.lists(BOX, max_size=3), min_size=2, max_size=2)


def losses_of(head, outputs, gts=None):
    return as_scalars(head.loss_by_feat(*outputs, gts or ground_truth(), metas()))


def total(losses):
    return total_loss(losses)


def small_outputs(head, seed, spread):
    """Random outputs of two images on three small levels; changes the strides."""
    generator = torch.Generator().manual_seed(seed)
    head.prior_generator.strides = STRIDES
    scores, preds = [], []
    for size, anchors in zip(SIZES, head.prior_generator.num_base_priors):
        channels = anchors * head.cls_out_channels
        scores.append(torch.randn(2, channels, *size, generator=generator))
        channels = anchors * head.reg_stages * 4
        preds.append(torch.randn(2, channels, *size, generator=generator) * spread)
    return [[x.requires_grad_() for x in part] for part in (scores, preds)]


def labels_equal_the_reference(head, seed, boxes, spread, thresholds, first, **options):
    """The label losses from stage ``first`` on, and their gradient by the logits."""
    scores, preds = small_outputs(head, seed, spread)
    labels = [[(seed + i) % 3 for i in range(len(image))] for image in boxes]
    gts = [instances(image, own) for image, own in zip(boxes, labels)]
    found = losses_of(head, (scores, preds), gts)
    names = ['loss_cls', *(f'loss_cls_s{k}' for k in range(1, head.label_stages))]

    channels = head.cls_out_channels
    logits = rows(scores, channels).detach().double().requires_grad_()
    deltas = rows(preds, 4 * head.reg_stages).detach().double()
    anchors = torch.cat(head.prior_generator.grid_priors(SIZES, device='cpu')).tolist()
    expected = label_losses(
        logits, deltas.split(4, dim=-1), anchors, boxes, labels, thresholds, options
    )
    for name, value in list(zip(names, expected))[first:]:
        torch.testing.assert_close(
            found[name].double(), value, rtol=1e-4, atol=1e-6, msg=name
        )
    sum(found[name] for name in names[first:]).backward()
    sum(expected[first:]).backward()
    torch.testing.assert_close(
        rows(gradients(scores), channels).double(), logits.grad, rtol=1e-3, atol=1e-6
    )
    assert all(float(x.abs().sum()) == 0 for x in gradients(preds))


def exported(**head_options):
    """Boxes and scores of a small detector as it is exported; the same weights."""
    model = small_detector(**{**FOCAL, **head_options})
    for index, parameter in enumerate(model.bbox_head.parameters()):
        torch.manual_seed(index)
        torch.nn.init.normal_(parameter, std=0.05)
    for parameter in (*model.backbone.parameters(), *model.neck.parameters()):
        torch.nn.init.constant_(parameter, 0.01)
    image = torch.arange(64 * 96 * 3).reshape(1, 64, 96, 3).to(torch.uint8)
    with torch.no_grad():
        return DeployableDetector(model, nms=False)(image, torch.tensor([[64, 96]]))
