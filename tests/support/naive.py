"""A head's later stages held against tests/reference, losses and gradients."""

import torch
from mmengine.structures import InstanceData

from tests.reference import consistent as reference
from tests.support.builders import as_scalars, instances, metas, total_loss

SIZES = [(4, 4), (2, 2), (1, 1)]
STRIDES = [(32, 32), (64, 64), (128, 128)]
FIRST_STAGE = {'loss_cls', 'loss_bbox', 'num_pos'}


def rows(levels, channels):
    """Levels of (2, A·channels, H, W) as one (2, ΣHWA, channels)."""
    flat = [x.permute(0, 2, 3, 1).reshape(2, -1, channels) for x in levels]
    return torch.cat(flat, dim=1)


def gradients(levels):
    return [torch.zeros_like(x) if x.grad is None else x.grad for x in levels]


def is_inside(box, border):
    """Whether an anchor takes part: not further out of 128 pixels than border."""
    x1, y1, x2, y2 = box
    inside = min(x1, y1) >= -border and max(x2, y2) < 128 + border
    return border < 0 or inside


def first_normaliser(head, anchors, usable, boxes, ignores):
    """Number of positives by mmdet's own assigner, at least 1 per image, added up."""
    priors = torch.tensor([a for a, u in zip(anchors, usable) if u]).reshape(-1, 4)
    count = 0
    for gts, regions in zip(boxes, ignores):
        result = head.stages[0].assigner.assign(
            InstanceData(priors=priors),
            instances(gts, [0] * len(gts)),
            instances(regions, [0] * len(regions)),
        )
        count += max(1, int((result.gt_inds > 0).sum()))
    return count


def equals_the_naive_reference(head, seed, boxes, ignores, spread, **options):
    """Two images, random outputs, three small levels.

    Args:
        head: The head; its strides are changed.
        seed: Of the outputs and labels.
        boxes: Ground truth of each image, lists of xyxy in pixels.
        ignores: Ignore regions likewise.
        spread: Standard deviation of the deltas.
        **options: weights, ignore_iof_thr and ssd: the reference's.

    Returns:
        The head's losses.
    """
    generator = torch.Generator().manual_seed(seed)
    head.prior_generator.strides = STRIDES
    classes, stages = head.cls_out_channels, head.reg_stages
    cls_scores, bbox_preds = [], []
    for size, anchors in zip(SIZES, head.prior_generator.num_base_priors):
        scores = torch.randn(2, anchors * classes, *size, generator=generator)
        pred = torch.randn(2, anchors * stages * 4, *size, generator=generator)
        cls_scores.append(scores.requires_grad_())
        bbox_preds.append(pred.mul_(spread).requires_grad_())
    labels = [
        torch.randint(0, 3, (len(b),), generator=generator).tolist() for b in boxes
    ]
    losses = as_scalars(
        head.loss_by_feat(
            cls_scores,
            bbox_preds,
            [instances(b, k) for b, k in zip(boxes, labels)],
            metas(),
            [instances(b, [0] * len(b)) for b in ignores],
        )
    )

    logits = rows(cls_scores, classes).detach().double().requires_grad_()
    deltas = rows(bbox_preds, 4 * stages).detach().double().requires_grad_()
    anchors = torch.cat(head.prior_generator.grid_priors(SIZES, device='cpu')).tolist()
    usable = [is_inside(a, head.train_cfg['allowed_border']) for a in anchors]
    expected = reference.later_stage_losses(
        logits,
        list(deltas.split(4, dim=-1)),
        [anchors, anchors],
        [usable, usable],
        boxes,
        labels,
        ignores,
        dict(
            label_stages=head.label_stages,
            reg_stages=stages,
            thresholds=[(0.6, 0.5), (0.7, 0.6)],
            first_normaliser=(
                first_normaliser(head, anchors, usable, boxes, ignores)
                if head.cls_normalizer == 'first'
                else None
            ),
            **options,
        ),
    )
    assert set(losses) - FIRST_STAGE == set(expected)
    for key, value in expected.items():
        value = torch.as_tensor(value, dtype=torch.float64)
        torch.testing.assert_close(
            losses[key].double(), value, rtol=1e-4, atol=1e-6, msg=key
        )
    sum(v for k, v in losses.items() if '_s' in k and 'loss' in k).backward()
    total_loss(expected).backward()
    for levels, naive in ((cls_scores, logits), (bbox_preds, deltas)):
        actual = rows(gradients(levels), naive.shape[-1]).double()
        (wanted,) = gradients([naive])
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-5 * spread)
    return losses
